//! How a client proves who it is.

use std::sync::Arc;

use bytes::Bytes;

use super::Handshake;
use crate::auth::scram::{Channel, MECHANISM, MECHANISM_PLUS, ScramError, Server};
use crate::auth::{Stored, md5};
use crate::config::Auth;
use crate::error::Error;
use crate::route::Route;
use crate::upstream::{Claim, Credentials, Login, nonce, random};
use crate::wire::backend::{self, Authentication};
use crate::wire::{DecodeError, HEADER, Header, Limits, cstr, decode, frontend};

/// PostgreSQL's bounds on passwords and on SASL messages, headers left out.
const PASSWORD_MAX: usize = 65_535;
const SASL_MAX: usize = 1024;

impl Handshake {
    /// Asks for proof. Whether the user exists cannot be told from how this goes, except where only a certificate will
    /// do, or the password is stored as md5.
    pub(super) async fn prove(&mut self, route: &Route, auth: Auth) -> Result<Credentials, Error> {
        let user = &route.user;
        let login = self.shared.directory.find(user).await?;
        let certificate = self.conn.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        if let (Some(login), Some(certificate)) = (&login, certificate)
            && login.is_named_by(certificate)
        {
            return Ok(Credentials { login: Some(Arc::clone(login)), keys: None });
        }
        let password = login.as_deref().and_then(|login| login.password.as_ref());
        match (password, auth) {
            (Some(Stored::Md5(_)), _) => self.prove_md5(user, login).await,
            (None, Auth::Passthrough) => self.prove_to_server(route).await,
            (None, Auth::Password | Auth::Trust)
                if login.as_deref().is_some_and(Login::is_by_certificate_only) =>
            {
                let is_shown = certificate.is_some();
                Err(if is_shown { Error::Certificate { user: user.clone() } } else { Error::NoCertificate })
            }
            (Some(Stored::Plain(_) | Stored::Scram(_)) | None, _) => self.prove_scram(user, login).await,
        }
    }

    /// Asks for the password itself, and the server whether it is right.
    async fn prove_to_server(&mut self, route: &Route) -> Result<Credentials, Error> {
        if !self.conn.stream.is_tls() && !self.conn.listener.address.is_local() {
            return Err(Error::InTheClear);
        }
        backend::put_authentication(&mut self.out, &Authentication::Cleartext);
        self.flush().await?;
        let message = self.password_message().await?;
        let password = match cstr(&message) {
            Some((b"", b"")) => return Err(Error::EmptyPassword),
            Some((password, b"")) => String::from_utf8(password.to_vec()).map_err(|_| DecodeError::Text)?,
            Some(_) | None => return Err(Error::PasswordSize),
        };
        let Route { database, user, .. } = route;
        let from = self.conn.peer.ip();
        let claim = Claim { database: database.clone(), user: user.clone(), from };
        let login = self.shared.directory.prove_to_server(claim, password).await?;
        Ok(Credentials { login: Some(login), keys: None })
    }

    async fn prove_md5(&mut self, user: &str, login: Option<Arc<Login>>) -> Result<Credentials, Error> {
        let salt = random::<4>().map_err(Error::Client)?;
        backend::put_authentication(&mut self.out, &Authentication::Md5(salt));
        self.flush().await?;
        let message = self.password_message().await?;
        let Some((given, b"")) = cstr(&message) else { return Err(Error::PasswordSize) };
        let proves = |login: &Login| match &login.password {
            Some(Stored::Md5(stored)) => {
                let expected = md5::response(stored, salt);
                aws_lc_rs::constant_time::verify_slices_are_equal(given, expected.as_bytes()).is_ok()
            }
            Some(Stored::Plain(_) | Stored::Scram(_)) | None => false,
        };
        if login.as_deref().is_some_and(proves) {
            return Ok(Credentials { login, keys: None });
        }
        // The challenge is the same for a new password.
        let again = self.shared.directory.find_again(user, login.as_deref()).await?;
        match again.filter(|login| proves(login)) {
            Some(login) => Ok(Credentials { login: Some(login), keys: None }),
            None => Err(Error::Denied { user: user.to_owned() }),
        }
    }

    async fn prove_scram(&mut self, user: &str, login: Option<Arc<Login>>) -> Result<Credentials, Error> {
        let end_point = self.conn.tls.as_ref().and_then(|tls| tls.end_point.clone());
        let offered: &[&str] = if end_point.is_some() { &[MECHANISM_PLUS, MECHANISM] } else { &[MECHANISM] };
        let offer = Authentication::Sasl(offered.iter().map(|name| (*name).to_owned()).collect());
        backend::put_authentication(&mut self.out, &offer);
        self.flush().await?;
        let message = self.sasl_message().await?;
        let initial = frontend::sasl_initial(&message)?;
        let channel = match (initial.mechanism, end_point.as_deref()) {
            (mechanism, Some(end_point)) if mechanism == MECHANISM_PLUS.as_bytes() => {
                Channel::Bound(end_point)
            }
            (mechanism, Some(_)) if mechanism == MECHANISM.as_bytes() => Channel::Declined,
            (mechanism, None) if mechanism == MECHANISM.as_bytes() => Channel::Unbound,
            (_, Some(_) | None) => return Err(Error::Mechanism),
        };
        let first = match initial.first {
            Some(first) => Bytes::copy_from_slice(first),
            // A client may want to hear the server before it speaks, as SASL allows.
            None => self.challenge("").await?,
        };
        let verifier = self.shared.directory.verifier(user, login.as_deref());
        let nonce = nonce().map_err(Error::Client)?;
        let (server, challenge) =
            Server::challenge(verifier, &nonce, &first, channel).map_err(Error::Scram)?;
        let last = self.challenge(&challenge).await?;
        let proven = match server.finish(&last) {
            Ok(proven) => proven,
            Err(ScramError::Proof) => {
                // The challenge was for the password of before: a new one is good for the client's next try.
                self.shared.directory.doubt(user).await;
                return Err(Error::Denied { user: user.to_owned() });
            }
            Err(error) => return Err(Error::Scram(error)),
        };
        backend::put_authentication(&mut self.out, &Authentication::SaslFinal(proven.proof.into()));
        Ok(Credentials { login, keys: Some(proven.keys) })
    }

    /// Sends a challenge, and waits for what the client says to it.
    async fn challenge(&mut self, challenge: &str) -> Result<Bytes, Error> {
        let challenge = Bytes::copy_from_slice(challenge.as_bytes());
        backend::put_authentication(&mut self.out, &Authentication::SaslContinue(challenge));
        self.flush().await?;
        self.sasl_message().await
    }

    async fn password_message(&mut self) -> Result<Bytes, Error> {
        self.answer(PASSWORD_MAX, Error::ExpectedPassword).await
    }

    async fn sasl_message(&mut self) -> Result<Bytes, Error> {
        self.answer(SASL_MAX, Error::ExpectedSasl).await
    }

    /// The client's next message, which has to be an answer to what it was asked, and no longer than that.
    async fn answer(&mut self, bytes_max: usize, other: fn(u8) -> Error) -> Result<Bytes, Error> {
        let limits = Limits { message: HEADER + bytes_max };
        loop {
            if let Some(&tag) = self.input.first()
                && tag != b'p'
            {
                return Err(other(tag));
            }
            if Header::read(&self.input)?.is_some_and(|header| header.total > limits.message) {
                return Err(DecodeError::Length.into());
            }
            if let Some(frame) = decode(&mut self.input, &limits)? {
                return Ok(frame.raw.slice(HEADER..));
            }
            self.fill().await?;
        }
    }
}
