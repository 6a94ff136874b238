//! The smallest proxy there can be: it sends back what it reads. It shows what [`Proxy`] asks for, and the
//! tests of this crate run it as a program.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use groove_common::admin;
use groove_common::app::{self, Context, DemoRow, Proxy, StartError};
use groove_common::config::{self, Admin, Document, Duration, Issues, Listener, Log};
use groove_common::net::{Downstream, LocalService, Service};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

fn main() -> ExitCode {
    app::main::<Echo>()
}

/// Only what every proxy has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    listeners: Vec<Listener>,
    #[serde(default)]
    admin: Option<Admin>,
    #[serde(default)]
    log: Log,
    #[serde(default = "config::default_drain")]
    drain: Duration,
    #[serde(default)]
    workers: Option<usize>,
}

impl Document for Config {
    fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    fn admin(&self) -> Option<&Admin> {
        self.admin.as_ref()
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn drain(&self) -> Duration {
        self.drain
    }

    fn workers(&self) -> Option<usize> {
        self.workers
    }

    fn validate(&self, _: &mut Issues) {}
}

struct Echo;

#[derive(clap::Subcommand)]
enum NoVerb {}

#[derive(clap::Args)]
struct NoArgs {}

impl Proxy for Echo {
    const NAME: &'static str = "echo";
    const ABOUT: &'static str = "Sends back what it reads";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ADMIN: &'static str = "127.0.0.1:9700";
    type Config = Config;
    type Verb = NoVerb;
    type Demo = NoArgs;

    fn start(_: Arc<Config>, _: &Context) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self))
    }

    fn service(self: &Arc<Self>) -> Service {
        Service::per_core(|_| Rc::new(Session))
    }

    fn reload(&self, _: Arc<Config>) -> Result<(), StartError> {
        Ok(())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    async fn demo(_: NoArgs) -> Result<Vec<DemoRow>, StartError> {
        Ok(vec![DemoRow::new("loopback", Ipv4Addr::LOCALHOST.to_string(), true)])
    }

    async fn verb(verb: NoVerb, _: admin::Client) -> Result<(), StartError> {
        match verb {}
    }
}

struct Session;

impl LocalService for Session {
    /// Between exchanges a drain ends the session; an exchange that has begun is finished.
    async fn serve(self: Rc<Self>, mut conn: Downstream) {
        let mut draining = conn.drain.draining();
        let mut buf = BytesMut::new();
        loop {
            tokio::select! {
                biased;
                read = conn.stream.fill(&mut buf) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                () = &mut draining => return,
            }
            if conn.stream.send(&mut buf).await.is_err() {
                return;
            }
        }
    }
}
