//! The harness: real servers and the three proxies as black boxes, for tests, the demo and the bench.
//!
//! Everything listens on a free loopback port, lives in a temporary folder, is waited for by an event (a
//! successful connect, a log line, an exit) and ended by its own process id when dropped. When a test
//! panics, the logs of whatever it had started are printed. Nothing here knows the proxies' code: they are
//! binaries, as an operator meets them.
//!
//! ```no_run
//! use harness::{Kind, Memcached, Proxy};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cache = Memcached::start()?;
//! let proxy = Proxy::of(Kind::Memcached)
//!     .config("listeners: [{address: $LISTEN}]\nadmin: {address: $ADMIN}\nclusters: {main: {endpoints: [$CACHE]}}")
//!     .set("CACHE", cache.address())
//!     .start()?;
//! assert!(proxy.get("/healthz")?.status.is_success());
//! # Ok(())
//! # }
//! ```

mod app;
pub mod bench;
pub mod certs;
pub mod checker;
pub mod crates;
pub mod http;
pub mod invariants;
pub mod load;
pub mod metrics;
pub mod npm;
pub mod paths;
mod ports;
mod process;
mod proxy;
pub mod python;
pub mod regress;
mod servers;
pub mod suites;
mod template;
pub mod tls;
mod wait;

pub use app::{App, Received};
pub use certs::Authority;
pub use metrics::Metrics;
pub use ports::Port;
pub use process::{Log, Process, Usage, end, run};
pub use proxy::{Kind, Proxy, ProxyBuilder};
pub use rustix::process::Signal;
pub use servers::haproxy::HaProxy;
pub use servers::memcached::{Memcached, MemcachedBuilder};
pub use servers::nginx::Nginx;
pub use servers::pgbouncer::PgBouncer;
pub use servers::postgres::{Postgres, PostgresBuilder};
pub use servers::release::Release;
pub use servers::scripted::Scripted;
pub use wait::{PATIENCE, eventually};
