//! How a client proves who it is.

use std::sync::Arc;

use bytes::Bytes;

use super::Handshake;
use crate::auth::scram::{Channel, MECHANISM, MECHANISM_PLUS, ScramError, Server};
use crate::auth::{Stored, md5};
use crate::error::Error;
use crate::upstream::{Credentials, Login, nonce, random};
use crate::wire::backend::{self, Authentication};
use crate::wire::{DecodeError, HEADER, Header, Limits, cstr, decode, frontend};

/// PostgreSQL's bounds on passwords and on SASL messages, headers left out.
const PASSWORD_MAX: usize = 65_535;
const SASL_MAX: usize = 1024;

impl Handshake {
    /// Asks for proof. Whether the user exists cannot be told from how this goes.
    pub(super) async fn prove(&mut self, user: &str) -> Result<Credentials, Error> {
        let login = self.shared.directory.find(user).await?;
        match login.as_deref().and_then(|login| login.password.as_ref()) {
            Some(Stored::Md5(_)) => self.prove_md5(user, login).await,
            Some(Stored::Plain(_) | Stored::Scram(_)) | None => self.prove_scram(user, login).await,
        }
    }

    async fn prove_md5(&mut self, user: &str, login: Option<Arc<Login>>) -> Result<Credentials, Error> {
        let salt = random::<4>().map_err(Error::Client)?;
        backend::put_authentication(&mut self.out, &Authentication::Md5(salt));
        self.flush().await?;
        let message = self.password_message().await?;
        let (given, _) = cstr(&message).ok_or(DecodeError::Format)?;
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
