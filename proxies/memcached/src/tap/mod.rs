//! The tap: what goes through a running proxy, for whoever watches. Never a value, only to who may use the admin
//! API, and at no cost while nobody watches.
//!
//! ```text
//! worker: a request, if the dice say so ─► Begun … its answer ─► Seen ─► each watcher's queue (bounded; what does
//! not fit is counted) ─► the watcher's own task: lines, or a summary of each interval ─► chunks of HTTP
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | what a watcher may ask for; who watches is in `common` ([`groove_common::tap`]) |
//! | `probe.rs` | a worker's end: which requests are noted, and what came of them |
//! | `seen.rs` | one exchange as it was seen, and the words for it |
//! | `summary.rs` | what was asked most in an interval, in bounded memory |
//! | `api.rs` | `/api/v1/tap` |
//! | `verb.rs` | `groove-memcached tap` |

pub mod api;
mod probe;
mod seen;
mod summary;
pub mod verb;

use std::sync::Arc;

use groove_common::tap;
use groove_common::telemetry::Registry;

pub use probe::{Asker, Begun, Probe};
pub use seen::{Seen, Server, Verb};

/// Who watches what: one for the whole proxy.
pub type Hub = tap::Hub<Filter, Seen>;
/// A watcher, as workers know it.
pub type Watcher = tap::Watcher<Filter, Seen>;

/// What a watcher wants to see: everything that is named must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The tenant's name.
    pub tenant: Option<String>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// The beginning of the key as the client writes it.
    pub prefix: Vec<u8>,
}

/// Nobody watches.
pub fn hub(registry: &Registry) -> Arc<Hub> {
    let dropped = "Exchanges that no watcher of the tap was told, as its queue was full";
    Hub::new(
        registry,
        ("groove_memcached_tap_watchers", "Who watches the tap"),
        ("groove_memcached_tap_dropped", dropped),
    )
}

#[cfg(test)]
mod tests;
