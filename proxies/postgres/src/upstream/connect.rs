//! Opening a connection to a server: TLS if asked for, startup, login.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use groove_common::ids::Address;
use groove_common::net::{self, Connector, Stream};

use super::server::{LIMITS, fill};
use super::{CancelTarget, Server, Target, nonce};
use crate::auth::scram::{self, Binding, Client};
use crate::auth::{Stored, md5};
use crate::config::ChannelBinding;
use crate::error::Error;
use crate::session::settings::Settings;
use crate::session::state::Backend;
use crate::wire::backend::{Authentication, parameter_status};
use crate::wire::startup::{CancelKey, Version, put_ssl_request, put_startup};
use crate::wire::{Frame, HEADER, decode, frontend};

/// What a server lacks where channel binding is required.
const UNBOUND: &str = "channel binding is required, and the server does not do it";

/// Connects and logs in. `extra` parameters are added to the startup packet.
pub async fn connect(
    target: &Target,
    address: &Address,
    extra: &[(String, String)],
    time_max: Duration,
) -> Result<Server, Error> {
    let mut stream = open(address, target.tls.as_ref(), time_max).await.map_err(Error::Connect)?;
    let mut out = BytesMut::new();
    let own = [("user", target.user.as_str()), ("database", target.dbname.as_str())];
    let extra = extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    put_startup(&mut out, Version::V3_0, own.into_iter().chain(extra));
    stream.send(&mut out).await.map_err(Error::Connect)?;

    let mut dialogue = Dialogue { stream, input: BytesMut::new() };
    dialogue.log_in(target).await?;
    let mut settings = Settings::default();
    let mut key = None;
    loop {
        let frame = dialogue.next().await?;
        match frame.tag {
            b'S' => {
                let (name, value) = parameter_status(frame.body()).map_err(Error::Upstream)?;
                settings.report(name, value);
            }
            b'K' => key = cancel_key(&frame),
            b'Z' => break,
            // Notices of a login are for nobody.
            _ => {}
        }
    }
    let key = key.unwrap_or(CancelKey { pid: 0, secret: bytes::Bytes::from_static(&[0; 4]) });
    let cancel = CancelTarget { address: address.clone(), tls: target.tls.clone(), key };
    Ok(Server {
        home: groove_common::net::here(),
        stream: dialogue.stream,
        backend: Backend::new(settings, target.statements_max),
        cancel: Arc::new(cancel),
        counted: None,
        seen: None,
        vouched_for: false,
        tie: None,
    })
}

/// Connects, with TLS if there is a connector: a server that has none is an error.
pub(super) async fn open(
    address: &Address,
    tls: Option<&Connector>,
    time_max: Duration,
) -> io::Result<Stream> {
    let mut stream = net::connect(address, None, time_max).await?;
    let Some(tls) = tls else { return Ok(stream) };
    let mut out = BytesMut::new();
    put_ssl_request(&mut out);
    stream.send(&mut out).await?;
    let mut answer = BytesMut::new();
    fill(&mut stream, &mut answer).await?;
    // Whatever follows in the clear could be an attacker's (CVE-2021-23222): exactly one byte.
    match &answer[..] {
        b"S" => {
            let host = match address {
                Address::Tcp { host, .. } => host.as_str(),
                Address::Unix(_) => "localhost",
            };
            Box::pin(tls.connect(host, stream)).await
        }
        b"N" => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{address} does not speak TLS"))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{address} is not a PostgreSQL server"))),
    }
}

fn cancel_key(frame: &Frame) -> Option<CancelKey> {
    let body = frame.raw.slice(HEADER..);
    let pid = body.first_chunk::<4>().map(|pid| i32::from_be_bytes(*pid))?;
    Some(CancelKey { pid, secret: body.slice(4..) })
}

/// A connection that is not yet a session.
struct Dialogue {
    stream: Stream,
    input: BytesMut,
}

impl Dialogue {
    /// The next message; an error of the server is one of ours.
    async fn next(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = decode(&mut self.input, &LIMITS).map_err(Error::Upstream)? {
                return match frame.tag {
                    b'E' => Err(Error::Refused(frame.raw.slice(HEADER..))),
                    _ => Ok(frame),
                };
            }
            fill(&mut self.stream, &mut self.input).await.map_err(Error::Connect)?;
        }
    }

    async fn authentication(&mut self) -> Result<Authentication, Error> {
        loop {
            let frame = self.next().await?;
            match frame.tag {
                b'R' => return Authentication::read(frame.raw.slice(HEADER..)).map_err(Error::Upstream),
                // NegotiateProtocolVersion and notices change nothing for us.
                b'v' | b'N' => {}
                _ => return Err(Error::Upstream(crate::wire::DecodeError::Format)),
            }
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), Error> {
        let mut out = BytesMut::new();
        write(&mut out);
        self.stream.send(&mut out).await.map_err(Error::Connect)
    }

    async fn log_in(&mut self, target: &Target) -> Result<(), Error> {
        // Where binding is required, nothing else will do, and nothing else is told.
        let mut bound_only = target.channel_binding == ChannelBinding::Require;
        let mut must_prove = target.must_prove;
        loop {
            match self.authentication().await? {
                Authentication::Ok | Authentication::Cleartext | Authentication::Md5(_) if bound_only => {
                    return Err(Error::ServerAuth(UNBOUND));
                }
                Authentication::Ok if must_prove => return Err(Error::Unproven),
                Authentication::Ok => return Ok(()),
                Authentication::Cleartext => {
                    must_prove = false;
                    let password = target.plain_password()?;
                    self.send(|out| frontend::put_password(out, password.as_bytes())).await?;
                }
                Authentication::Md5(salt) => {
                    must_prove = false;
                    let response = match &target.password {
                        Some(Stored::Plain(password)) => {
                            md5::response(&md5::stored(&target.user, password), salt)
                        }
                        Some(Stored::Md5(stored)) => md5::response(stored, salt),
                        Some(Stored::Scram(_)) | None => {
                            return Err(Error::ServerAuth(
                                "the server asks for a password, and there is none",
                            ));
                        }
                    };
                    self.send(|out| frontend::put_password(out, response.as_bytes())).await?;
                }
                Authentication::Sasl(mechanisms) => {
                    let (mechanism, binding) = self.choose(target.channel_binding, &mechanisms)?;
                    self.scram(target, mechanism, binding).await?;
                    (bound_only, must_prove) = (false, false);
                }
                Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                    return Err(Error::ServerAuth("a SASL message out of turn"));
                }
                Authentication::Other(_) => {
                    return Err(Error::ServerAuth(
                        "the server asks for a kind of login that we do not speak",
                    ));
                }
            }
        }
    }

    /// The mechanism to use of those offered, and what to say of channel binding, as libpq does.
    fn choose(&self, wanted: ChannelBinding, offered: &[String]) -> Result<(&'static str, Binding), Error> {
        let offers = |mechanism: &str| offered.iter().any(|offer| offer == mechanism);
        let end_point = match wanted {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => self.stream.server_end_point(),
        };
        let choice = match end_point {
            Some(hash) if offers(scram::MECHANISM_PLUS) => {
                Some((scram::MECHANISM_PLUS, Binding::EndPoint(hash)))
            }
            Some(_) => Some((scram::MECHANISM, Binding::Unoffered)),
            None => Some((scram::MECHANISM, Binding::None)),
        };
        match choice.filter(|(mechanism, _)| offers(mechanism)) {
            Some((scram::MECHANISM, _)) if wanted == ChannelBinding::Require => {
                Err(Error::ServerAuth(UNBOUND))
            }
            Some(choice) => Ok(choice),
            None => Err(Error::ServerAuth("the server offers no SASL mechanism that we speak")),
        }
    }

    async fn scram(&mut self, target: &Target, mechanism: &str, binding: Binding) -> Result<(), Error> {
        // Before anything is sent: the server would count a failed login.
        target.check_scram()?;
        let (mut client, first) = Client::start(&nonce().map_err(Error::Connect)?, binding);
        self.send(|out| frontend::put_sasl_initial(out, mechanism, first.as_bytes())).await?;
        let Authentication::SaslContinue(challenge) = self.authentication().await? else {
            return Err(Error::ServerAuth("the server broke off the SASL exchange"));
        };
        let keys = |salt: &[u8], iterations| target.scram_keys(salt, iterations);
        let response = client.respond(&challenge, keys).map_err(Error::ServerScram)?;
        self.send(|out| frontend::put_sasl_response(out, response.as_bytes())).await?;
        let Authentication::SaslFinal(proof) = self.authentication().await? else {
            return Err(Error::ServerAuth("the server broke off the SASL exchange"));
        };
        client.verify(&proof).map_err(Error::ServerScram)
    }
}
