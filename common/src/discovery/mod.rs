//! Where the servers are: sources, and the snapshot they and health make together.
//!
//! ```text
//!  static ─┐                          probes ─┐   ┌─ reports of exchanges
//!  file  ──┼─ Source ─► endpoints ─► Registry ◄───┘
//!  dns …  ─┘                            │ publishes
//!                                       ▼
//!                         Arc<Snapshot>, swapped whole ─► workers' readers
//! ```
//!
//! A [`Cluster`] keeps one [`Snapshot`]: endpoints and their health together, so that nobody
//! ever sees one without the other. Another source (etcd, ...) is one more file here that
//! implements [`Source`].

mod clock;
mod cluster;
mod dns;
mod elasticache;
mod endpoint;
mod file;
mod probe;
mod registry;
mod snapshot;
mod source;
mod status;
mod welcome;

pub use clock::fresh_dice;
pub use cluster::{Cluster, Reader, Update};
pub use elasticache::tell_nodes;
pub use endpoint::{Endpoint, Exchange, Outcome, Released};
pub use probe::{ConnectProber, ProbeError, Prober};
pub use snapshot::{Health, Member, Policy, Snapshot};
pub use source::{Found, Source, SourceError, Told, from_config};
pub use status::{ClusterStatus, EndpointStatus};
pub use welcome::Welcome;

#[cfg(test)]
mod tests;
