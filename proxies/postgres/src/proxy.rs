//! The proxy as the program around it sees it.

use std::sync::Arc;

use bytes::BytesMut;
use groove_common::admin;
use groove_common::app::{Context, DemoRow, Proxy, Resumed, StartError};
use groove_common::net::{Downstream, Drain, Service, SharedService, TlsStart};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::Shared;
use crate::config::Config;
use crate::console::{self, Console, History};
use crate::demo;
use crate::error::Error;
use crate::import::ImportPgbouncer;
use crate::live::Live;
use crate::metrics::LoginMetrics;
use crate::migrate::{self, Keeper, Migrate};
use crate::pgbadger::{self, Pgbadger};
use crate::replicate::{self, Groups};
use crate::reply;
use crate::session::cancel::Cancels;
use crate::session::driver::Session;
use crate::session::handover::{self, Resumable};
use crate::session::handshake::{Accepted, Admitted, Handshake};
use crate::tap::{self, Tap};
use crate::upstream::Directory;
use crate::wire::startup::{CancelKey, Startup};

/// groove-postgres.
pub struct Postgres {
    shared: Arc<Shared>,
    drain: Drain,
}

/// Its own verbs.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Print a configuration that does what this pgbouncer.ini does
    ImportPgbouncer(ImportPgbouncer),
    /// Show what goes through: each statement, or what takes most time; never a literal
    Tap(tap::verb::Tap),
    /// Move a database to another server while its clients go on
    Migrate(Migrate),
    /// Look after replicated databases: how their members are, compare them, let them in again
    Replicate(replicate::verb::Replicate),
}

impl Proxy for Postgres {
    const NAME: &'static str = "groove-postgres";
    const ABOUT: &'static str = "A PostgreSQL sidecar: connection pooling that sessions do not notice";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ADMIN: &'static str = "127.0.0.1:9632";
    const HANDOVER: Option<u32> = Some(handover::VERSION);

    type Config = Config;
    type Verb = Verb;
    type Demo = demo::Args;

    fn start(config: Arc<Config>, cx: &Context) -> Result<Arc<Postgres>, StartError> {
        let (migrations, config) = Keeper::start(&config)?;
        let live = Arc::new(Live::default());
        let pgbadger = Arc::new(Pgbadger::new(&config.pgbadger, &cx.registry)?);
        let slow = config.slow_query.map(groove_common::config::Duration::get);
        let directory = Directory::start(&config, cx, &live)?;
        let shared = Shared {
            groups: Groups::start(&config, &directory, cx),
            directory,
            live,
            tap: Tap::new(&cx.registry, slow, Arc::clone(&pgbadger)),
            pgbadger,
            history: History::default(),
            control: cx.control.clone(),
            cancels: Arc::new(Cancels::default()),
            login_metrics: LoginMetrics::new(&cx.registry),
            access: cx.access.clone(),
            logins: Semaphore::new(config.limits.logins as usize),
            migrations,
            handover: cx.handover.clone(),
        };
        let shared = Arc::new(shared);
        cx.runtime.spawn(console::keep_history(Arc::downgrade(&shared)));
        cx.runtime.spawn(pgbadger::tell_stats(Arc::downgrade(&shared)));
        Ok(Arc::new(Postgres { shared, drain: cx.drain.clone() }))
    }

    fn service(self: &Arc<Postgres>) -> Service {
        Service::shared(Arc::clone(self)).tls_start(TlsStart::ByProtocol).alpn(&[b"postgresql"])
    }

    fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        self.shared.groups.check(&self.shared.directory.config(), &config)?;
        let files = self.shared.pgbadger.open(&config.pgbadger)?;
        self.shared.migrations.reload(&config, |config| self.shared.directory.reload(config))?;
        self.shared.pgbadger.take(files);
        self.shared.tap.set_slow(config.slow_query.map(groove_common::config::Duration::get));
        Ok(())
    }

    fn hand_over(&self) {
        self.shared.directory.hand_over();
    }

    fn resume(self: &Arc<Postgres>, state: &[u8]) -> Result<Resumed, String> {
        let resumable = Resumable::read(&self.shared, state)?;
        Ok(Box::new(|conn| Box::pin(resumable.session(conn).run())))
    }

    /// A cancel request that names no session of the next process.
    fn heard(self: &Arc<Postgres>, word: Vec<u8>) {
        let shared = Arc::clone(&self.shared);
        if let Some(key) = CancelKey::of_word(&word) {
            tokio::spawn(async move { shared.cancel(key).await });
        }
    }

    fn status(&self) -> serde_json::Value {
        let directory = &self.shared.directory;
        let pools: Vec<_> = directory.pools().iter().map(|pool| pool.status()).collect();
        let pools: Vec<_> = directory.auth_query_status().into_iter().chain(pools).collect();
        let migrations = self.shared.migrations.status();
        let clusters = directory.cluster_status();
        let mut status = json!({ "clusters": clusters, "pools": pools, "migrations": migrations });
        let groups: Vec<_> = self.shared.groups.all().map(|group| replicate::api::status(group)).collect();
        if let (false, Some(status)) = (groups.is_empty(), status.as_object_mut()) {
            status.insert("groups".to_owned(), json!(groups));
        }
        status
    }

    fn routes(self: &Arc<Postgres>) -> admin::Routes {
        let routes = tap::api::routes(&self.shared, &self.drain).and(migrate::routes(&self.shared));
        routes.and(replicate::api::routes(&self.shared))
    }

    async fn demo(args: demo::Args) -> Result<Vec<DemoRow>, StartError> {
        demo::run(args).await
    }

    async fn verb(verb: Verb, admin: admin::Client) -> Result<(), StartError> {
        match verb {
            // A file in, a file out: no running proxy is asked.
            Verb::ImportPgbouncer(import) => import.run(),
            Verb::Tap(tap) => tap.run(admin).await,
            Verb::Migrate(migrate) => migrate.run(admin).await,
            Verb::Replicate(replicate) => replicate.run(admin).await,
        }
    }
}

/// A client that has got in.
enum Served {
    Session(Box<Session>),
    Console(Box<Console>),
    Replicated(Box<replicate::session::Session>),
}

impl SharedService for Postgres {
    // A future that is given a value keeps room for it to its end: this one is given a box.
    fn serve(self: Arc<Postgres>, conn: Downstream) -> impl Future<Output = ()> + Send {
        let admitted = Box::pin(self.admit(conn));
        async move {
            match admitted.await {
                Some(Served::Session(session)) => session.run().await,
                Some(Served::Console(console)) => Box::pin(console.run()).await,
                Some(Served::Replicated(session)) => Box::pin(session.run()).await,
                None => {}
            }
        }
    }

    async fn refuse(self: Arc<Postgres>, mut conn: Downstream) {
        let mut out = BytesMut::new();
        reply::put_session_error(&mut out, &Error::ListenerFull);
        // There is nobody else to tell if it does not get through.
        let _ = conn.stream.send(&mut out).await;
    }
}

impl Postgres {
    /// Leads a client in, within the bounds on time and number.
    async fn admit(self: Arc<Postgres>, conn: Downstream) -> Option<Served> {
        let handshake = Handshake::new(Arc::clone(&self.shared), conn);
        let Ok(_place) = self.shared.logins.try_acquire() else {
            self.count_refused(&handshake, None, &Error::TooManyClients);
            handshake.refuse_unheard(&Error::TooManyClients).await;
            return None;
        };
        let time_max = self.shared.directory.config().limits.login.get();
        let peer = handshake.peer();
        let accepted = timeout(time_max, handshake.accept()).await;
        let (mut handshake, startup) = match accepted {
            Ok(Accepted::Session(handshake, startup)) => (handshake, startup),
            Ok(Accepted::Done) => return None,
            Ok(Accepted::Refused(handshake, error)) => {
                self.turn_away(*handshake, None, &error);
                return None;
            }
            Ok(Accepted::Gone(error)) => {
                debug!(peer, %error, "a client did not get to its startup packet");
                return None;
            }
            // Deaf so far, it hears nothing now: PostgreSQL says nothing either.
            Err(_) => {
                debug!(peer, "a client sent no startup packet in time");
                return None;
            }
        };
        let logged_in = timeout(time_max, handshake.log_in(&startup)).await;
        match logged_in.unwrap_or(Err(Error::LoginTimeout)) {
            Ok(Admitted::Session(logged_in)) => Some(Served::Session(handshake.into_session(logged_in))),
            Ok(Admitted::Replicated(welcome)) => {
                Some(Served::Replicated(handshake.into_replicated(*welcome)))
            }
            Ok(Admitted::Console(access, registered)) => {
                Some(Served::Console(handshake.into_console(access, registered)))
            }
            Err(error) => {
                self.turn_away(*handshake, Some(&startup), &error);
                None
            }
        }
    }

    fn turn_away(&self, handshake: Handshake, startup: Option<&Startup>, error: &Error) {
        self.count_refused(&handshake, startup, error);
        handshake.refuse(error);
    }

    fn count_refused(&self, handshake: &Handshake, startup: Option<&Startup>, error: &Error) {
        let peer = handshake.peer();
        if let Error::Client(_) = error {
            debug!(peer, %error, "a login was broken off");
        } else {
            self.shared.login_metrics.failed.inc();
            info!(peer, %error, "a login failed");
            handshake.log_refused(startup, error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(Arc<Postgres>, A) -> F) -> usize {
        size_of::<F>()
    }

    /// Tens of thousands of idle clients each pay for every byte here.
    #[test]
    fn an_idle_client_costs_its_session_and_little_more() {
        let (session, future) = (size_of::<Session>(), size(Postgres::serve));
        let seen = size_of::<crate::live::Client>();
        assert!(seen <= 192, "{seen} bytes for the console");
        assert!(session <= 832 && future <= 608, "{session} bytes, and {future} to run it");
    }
}
