//! From an accepted connection to a session that is logged in: TLS, startup, proof, greeting.

mod proof;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use groove_common::net::{Downstream, Transport};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::cancel::Registered;
use super::driver::{Parts, Session};
use super::settings::{Settings, of_startup};
use super::state::{Machine, Mode};
use crate::Shared;
use crate::config::Auth;
use crate::console::{self, Access, Console};
use crate::error::Error;
use crate::pgbadger::Who;
use crate::replicate;
use crate::replicate::group::Group;
use crate::replicate::session::Welcome;
use crate::route::{Route, negotiate, route};
use crate::upstream::Credentials;
use crate::wire::DecodeError;
use crate::wire::backend::{self, Authentication, Status};
use crate::wire::startup::{self, Opening, Startup, Version};

/// The first byte of a TLS handshake. As the first byte of a startup packet's length it would be absurd.
const TLS_HANDSHAKE: u8 = 0x16;
/// TLS without an SSLRequest has to agree on this, so that it cannot be another protocol's (PostgreSQL 17).
const ALPN: &[u8] = b"postgresql";
/// A client that comes at the wrong time has this long to hear so.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// A client on its way in.
pub struct Handshake {
    shared: Arc<Shared>,
    conn: Downstream,
    input: BytesMut,
    out: BytesMut,
    tls_asked: bool,
    gss_asked: bool,
}

/// What a client wanted, or why it does not get in.
pub enum Accepted {
    /// A session.
    Session(Box<Handshake>, Startup),
    /// Nothing more.
    Done,
    /// It is told why, if it still listens.
    Refused(Box<Handshake>, Error),
    /// TLS failed: there is nobody to tell.
    Gone(Error),
}

enum Step {
    Again,
    StartTls,
    Done,
    Startup(Startup),
}

impl Handshake {
    /// Begins with a connection that has said nothing yet.
    pub fn new(shared: Arc<Shared>, conn: Downstream) -> Box<Handshake> {
        let (input, out) = (BytesMut::new(), BytesMut::new());
        Box::new(Handshake { shared, conn, input, out, tls_asked: false, gss_asked: false })
    }

    /// Leads a client to its startup packet, over TLS if it asks for it.
    pub async fn accept(mut self: Box<Handshake>) -> Accepted {
        let mut next = match self.begins_with_tls().await {
            Ok(true) => Ok(Step::StartTls),
            Ok(false) => Ok(Step::Again),
            Err(error) => Err(error),
        };
        loop {
            match next {
                Ok(Step::Again) => {}
                Ok(Step::StartTls) => match self.start_tls().await {
                    Ok(secured) => self = secured,
                    Err(error) => return Accepted::Gone(error),
                },
                Ok(Step::Done) => return Accepted::Done,
                Ok(Step::Startup(startup)) => return Accepted::Session(self, startup),
                // PostgreSQL tells its log alone: this may be no client of its at all.
                Err(Error::Protocol(error @ DecodeError::StartupLength)) => {
                    return Accepted::Gone(error.into());
                }
                Err(error) => return Accepted::Refused(self, error),
            }
            next = self.step().await;
        }
    }

    async fn step(&mut self) -> Result<Step, Error> {
        match self.opening().await? {
            Opening::Ssl if !self.tls_asked => {
                self.tls_asked = true;
                let offers = self.conn.offers_tls();
                self.out.extend_from_slice(if offers { b"S" } else { b"N" });
                self.flush().await?;
                Ok(if offers { Step::StartTls } else { Step::Again })
            }
            Opening::GssEnc if !self.gss_asked => {
                self.gss_asked = true;
                self.out.extend_from_slice(b"N");
                self.flush().await?;
                Ok(Step::Again)
            }
            // The code of a second request is not a version that anybody speaks.
            Opening::Ssl | Opening::GssEnc => Err(Error::Version(Version { major: 1234, minor: 5679 })),
            Opening::Cancel(key) => {
                if !self.shared.cancel(key).await {
                    self.shared.login_metrics.stray_cancels.inc();
                }
                Ok(Step::Done)
            }
            Opening::Startup(startup) => Ok(Step::Startup(startup)),
        }
    }

    /// Whether the client starts TLS with its first byte, as it may from PostgreSQL 17 on.
    async fn begins_with_tls(&mut self) -> Result<bool, Error> {
        let mut first = [0];
        match self.conn.stream.transport() {
            Transport::Tcp(tcp) if self.conn.offers_tls() => {
                tcp.peek(&mut first).await.map_err(Error::Client)?;
            }
            Transport::Tcp(_) | Transport::Unix(_) | Transport::Pipe(_) => {}
        }
        Ok(first == [TLS_HANDSHAKE])
    }

    async fn start_tls(self: Box<Handshake>) -> Result<Box<Handshake>, Error> {
        let Handshake { shared, conn, input, out, tls_asked, gss_asked } = *self;
        let conn = Box::pin(conn.start_tls(&input)).await.map_err(Error::Client)?;
        let agreed = conn.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        if !tls_asked && agreed != Some(ALPN) {
            return Err(Error::DirectTls);
        }
        Ok(Box::new(Handshake { shared, conn, input, out, tls_asked: true, gss_asked }))
    }

    async fn opening(&mut self) -> Result<Opening, Error> {
        loop {
            if let Some(opening) = startup::decode(&mut self.input)? {
                return Ok(opening);
            }
            self.fill().await?;
        }
    }

    /// Finds out who the client is, and greets it.
    pub async fn log_in(&mut self, startup: &Startup) -> Result<Admitted, Error> {
        let route = route(startup)?;
        if let Some((version, unknown)) = negotiate(startup) {
            backend::put_negotiate(&mut self.out, version.code(), &unknown);
        }
        let config = self.shared.directory.config();
        let route = route.among(config.databases.keys());
        let credentials = match config.auth {
            Auth::Password | Auth::Passthrough => Box::pin(self.prove(&route, config.auth)).await?,
            Auth::Trust => Credentials { login: self.shared.directory.login(&route.user), keys: None },
        };
        let long_key = startup.version >= Version::V3_2;
        if let Some(access) = console::access(&config, &route)? {
            let registered = self.shared.cancels.register(None, long_key).map_err(Error::Client)?;
            console::greet(&mut self.out, &registered.key);
            self.flush().await?;
            return Ok(Admitted::Console(access, registered));
        }
        if let Some(group) = self.shared.groups.get(&route.database) {
            let group = Arc::clone(group);
            return Box::pin(self.enter_group(group, route, credentials, startup, long_key)).await;
        }
        let logged_in = Box::pin(self.enter(route, credentials, startup, long_key)).await?;
        backend::put_authentication(&mut self.out, &Authentication::Ok);
        for (name, value) in logged_in.settings.reported() {
            backend::put_parameter_status(&mut self.out, name, value);
        }
        let key = &logged_in.registered.key;
        backend::put_key(&mut self.out, key.pid, &key.secret);
        backend::put_ready(&mut self.out, Status::Idle);
        self.flush().await?;
        Ok(Admitted::Session(logged_in))
    }

    /// Finds the client's pool and its settings, and for a session of its own its server.
    async fn enter(
        &mut self,
        route: Route,
        credentials: Credentials,
        startup: &Startup,
        long_key: bool,
    ) -> Result<LoggedIn, Error> {
        let pool = self.shared.directory.pool(&route.database, &route.user, credentials)?;
        let asked = of_startup(&startup.parameters);
        let mode = pool.mode();
        if let Some(replication) = &route.replication {
            let mut extra = vec![("replication".to_owned(), replication.clone())];
            extra.extend(startup.parameters.iter().filter(|(name, _)| is_carried(name)).cloned());
            let server = super::Lease::Own(Box::new(pool.dial(&extra).await?));
            let settings = Arc::clone(&server.backend.settings);
            let pid = Some(server.cancel.key.pid);
            let registered = self.shared.cancels.register(pid, long_key).map_err(Error::Client)?;
            let mode = Mode::Session;
            return Ok(LoggedIn { pool, mode, settings, registered, lease: Some(server) });
        }
        let settings = pool.settings(asked).await?;
        let (lease, pid) = match mode {
            Mode::Session => {
                let lease = super::Lease::Pooled(pool.lease_now().await?);
                let pid = lease.cancel.key.pid;
                (Some(lease), Some(pid))
            }
            Mode::Transaction | Mode::Statement => (None, None),
        };
        let registered = self.shared.cancels.register(pid, long_key).map_err(Error::Client)?;
        Ok(LoggedIn { pool, mode, settings, registered, lease })
    }

    /// Logs a client of a replicated database in on the group's leader, and greets it.
    async fn enter_group(
        &mut self,
        group: Arc<Group>,
        route: Route,
        credentials: Credentials,
        startup: &Startup,
        long_key: bool,
    ) -> Result<Admitted, Error> {
        if route.replication.is_some() {
            let message =
                "a walsender's connection is to one server, and this database is several".to_owned();
            return Err(Error::Group { code: "0A000", message });
        }
        let target = self.shared.directory.member_target(&route.database, &route.user, credentials)?;
        let welcome = Welcome::new(&self.shared, group, target, &startup.parameters, long_key).await?;
        backend::put_authentication(&mut self.out, &Authentication::Ok);
        for (name, value) in &welcome.reported {
            backend::put_parameter_status(&mut self.out, name, value);
        }
        let key = &welcome.registered().key;
        backend::put_key(&mut self.out, key.pid, &key.secret);
        backend::put_ready(&mut self.out, Status::Idle);
        self.flush().await?;
        Ok(Admitted::Replicated(Box::new(welcome)))
    }

    /// The session of a client of a replicated database.
    pub fn into_replicated(self, welcome: Welcome) -> Box<replicate::session::Session> {
        let Handshake { shared, conn, input, .. } = self;
        replicate::session::Session::new(&shared, conn, input, welcome)
    }

    /// The console of an operator who is logged in.
    pub fn into_console(self, access: Access, registered: Registered) -> Box<Console> {
        let Handshake { shared, conn, input, .. } = self;
        Console::new(shared, conn, input, access, registered)
    }

    /// The session of a client that is logged in.
    pub fn into_session(self, logged_in: LoggedIn) -> Box<Session> {
        let bounds = self.shared.directory.config().limits.bounds();
        let LoggedIn { pool, mode, settings, registered, lease } = logged_in;
        let application_name = settings.get("application_name").unwrap_or_default();
        let seen = self.shared.live.client(&pool, &self.conn, application_name, SystemTime::now());
        self.shared.pgbadger.entered(&seen);
        let machine = Machine::new(mode, bounds, Arc::clone(&pool.statements), settings);
        let Handshake { shared, conn, input, .. } = self;
        Session::new(Parts { shared, conn, input, pool, machine, registered, lease, seen })
    }

    /// Tells the client why it does not get in. It may be gone, or deaf: nobody waits for it.
    pub fn refuse(mut self, error: &Error) {
        crate::reply::put_session_error(&mut self.out, error);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = self.conn.stream.poll_send(&mut cx, &mut self.out);
    }

    /// As [`Handshake::refuse`], for a client that has not been heard yet: closed while its startup packet is on the way,
    /// the connection would be reset, and the reason lost with it.
    pub async fn refuse_unheard(mut self: Box<Handshake>, error: &Error) {
        crate::reply::put_session_error(&mut self.out, error);
        let farewell = async {
            self.flush().await?;
            self.conn.stream.shutdown().await.map_err(Error::Client)?;
            loop {
                self.fill().await?;
                self.input.clear();
            }
        };
        // However it ends: by the client's end mostly, which is an error to whoever reads.
        let _ended: Result<Result<(), Error>, _> = timeout(FAREWELL_MAX, farewell).await;
    }

    /// Who is at the other end, for the log.
    pub fn peer(&self) -> String {
        self.conn.peer.to_string()
    }

    /// Tells the log of a client that is not let in, and of what it has asked for.
    pub fn log_refused(&self, startup: Option<&Startup>, error: &Error) {
        let user = startup.and_then(|startup| startup.get("user")).unwrap_or("(nouser)");
        let database = startup.map_or("(nodb)", |startup| startup.get("database").unwrap_or(user));
        let who = Who { number: 0, database, user, peer: self.conn.peer };
        self.shared.pgbadger.refused(who, self.conn.stream.is_tls(), error);
    }

    async fn fill(&mut self) -> Result<(), Error> {
        match self.conn.stream.fill(&mut self.input).await.map_err(Error::Client)? {
            0 => Err(Error::Client(std::io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.conn.stream.send(&mut self.out).await.map_err(Error::Client)
    }
}

/// Startup parameters that a walsender's connection gets as the client gave them.
fn is_carried(name: &str) -> bool {
    !matches!(name, "user" | "database" | "replication") && !name.starts_with("_pq_.")
}

/// Who has got in.
pub enum Admitted {
    /// A client of a database.
    Session(LoggedIn),
    /// An operator, who talks to us.
    Console(Access, Registered),
    /// A client of a replicated database.
    Replicated(Box<Welcome>),
}

/// Who a client is, and what it begins with.
pub struct LoggedIn {
    pool: Arc<crate::upstream::UserPool>,
    mode: Mode,
    settings: Arc<Settings>,
    registered: Registered,
    lease: Option<super::Lease>,
}
