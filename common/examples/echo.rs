//! The smallest proxy there can be: it sends back what it reads. It shows what [`Proxy`] asks for, and the
//! tests of this crate run it as a program.

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use groove_common::admin;
use groove_common::app::{self, Context, DemoRow, Proxy, Running, StartError};
use groove_common::config::{self, Admin, Basics, Document, Duration, Issues, Listener, Log};
use groove_common::net::{Downstream, LocalService, Service, connect};
use groove_common::telemetry::{AccessLog, Event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);

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
    fn basics(&self) -> Basics<'_> {
        Basics {
            listeners: &self.listeners,
            admin: self.admin.as_ref(),
            log: &self.log,
            drain: self.drain,
            workers: self.workers,
            handover: None,
        }
    }

    fn validate(&self, _: &mut Issues) {}
}

struct Echo {
    access: AccessLog,
}

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

    fn start(_: Arc<Config>, cx: &Context) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self { access: cx.access.clone() }))
    }

    fn service(self: &Arc<Self>) -> Service {
        let access = self.access.clone();
        Service::per_core(move |_| Rc::new(Session { access: access.clone() }))
    }

    fn reload(&self, _: Arc<Config>) -> Result<(), StartError> {
        Ok(())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    async fn demo(_: NoArgs) -> Result<Vec<DemoRow>, StartError> {
        let config = config::check_text::<Config>("demo", "listeners: [{address: 127.0.0.1:0}]")?;
        // Nobody will ask this one to reload.
        let (reloads, _) = mpsc::channel(1);
        let running = Running::<Self>::start(config, Handle::current(), reloads)?;
        let mut rows = Vec::new();
        for address in running.addresses() {
            let mut stream = connect(&address, None, TIME_MAX).await?;
            stream.send(&mut &b"hello\n"[..]).await?;
            let mut buf = BytesMut::new();
            stream.fill(&mut buf).await?;
            rows.push(DemoRow::new(format!("a line to {address}"), format!("{buf:?}"), buf == "hello\n"));
        }
        Ok(rows)
    }

    async fn verb(verb: NoVerb, _: admin::Client) -> Result<(), StartError> {
        match verb {}
    }
}

const LINE_BYTES_MAX: usize = 64 * 1024;

struct Session {
    access: AccessLog,
}

impl LocalService for Session {
    /// A line is an exchange. Between exchanges a drain ends the session; one that has begun is finished.
    async fn serve(self: Rc<Self>, mut conn: Downstream) {
        let mut draining = conn.drain.draining();
        let mut buf = BytesMut::new();
        loop {
            let idle = buf.is_empty();
            tokio::select! {
                biased;
                read = conn.stream.fill(&mut buf) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) if buf.len() > LINE_BYTES_MAX => return,
                    Ok(_) => {}
                },
                () = &mut draining, if idle => return,
            }
            while let Some(end) = buf.iter().position(|byte| *byte == b'\n') {
                let mut line = buf.split_to(end + 1);
                self.access
                    .record(false, || Event::new("echo").with("bytes", end + 1).show("peer", conn.peer));
                if conn.stream.send(&mut line).await.is_err() {
                    return;
                }
            }
        }
    }
}
