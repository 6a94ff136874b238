//! The tap and the slow-query log: which statements go through a running proxy and what comes of them, never with a
//! literal, and at no cost while nobody wants to know.
//!
//! ```text
//! a session's machine, if somebody wants to know: Notes … what ended ─► Settled ─► the log, if it was slow
//!                                                                 └─► Seen, if the dice say so ─► each watcher
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | [`Tap`]: whether statements are noted, and who is told of one that has ended |
//! | `seen.rs` | one statement as it was seen |
//! | `slow.rs` | a line of the slow-query log |
//! | `summary.rs` | what took most time in an interval, in bounded memory |
//! | `api.rs` | `/api/v1/tap` |
//! | `verb.rs` | `groove-postgres tap` |
//!
//! Who watches, their queues and their tasks are in `common` ([`groove_common::tap`]); what a session notes is in its
//! machine (`session/state/notes.rs`); texts are masked by [`crate::sql::mask`].

pub mod api;
mod seen;
mod slow;
mod summary;
#[cfg(test)]
mod tests;
pub mod verb;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groove_common::discovery::fresh_dice;
use groove_common::tap::{ALL, Hub, Watcher};
use groove_common::telemetry::Registry;
use smallvec::SmallVec;

use crate::live::Client;
use crate::metrics::micros;
use crate::pgbadger::Pgbadger;
use crate::session::settings::Settings;
use crate::session::state::{Machine, Settled};
use crate::upstream::Server;

pub use seen::Seen;

/// Stands for no limit at all.
const NEVER: u64 = u64::MAX;

/// What a watcher wants to see: everything that is named must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The database, as clients name it.
    pub database: Option<String>,
    /// The user, as clients name it.
    pub user: Option<String>,
}

/// Who is told of statements: one for the whole proxy.
pub struct Tap {
    hub: Arc<Hub<Filter, Seen>>,
    /// A statement that takes so many microseconds is logged.
    slow_us: AtomicU64,
    /// Where it is logged besides.
    pgbadger: Arc<Pgbadger>,
    /// Where the dice stand, which all sessions share.
    dice: AtomicU64,
}

/// Whose statements have ended.
#[derive(Clone, Copy)]
pub struct Whose<'a> {
    /// The client.
    pub client: &'a Client,
    /// Where they ran.
    pub server: &'a Server,
}

impl Tap {
    /// Nobody watches. `slow` is the limit of the slow-query log.
    pub fn new(registry: &Registry, slow: Option<Duration>, pgbadger: Arc<Pgbadger>) -> Tap {
        let hub = Hub::new(
            registry,
            ("groove_postgres_tap_watchers", "Who watches the tap"),
            (
                "groove_postgres_tap_dropped",
                "Statements that no watcher of the tap was told, as its queue was full",
            ),
        );
        let dice = AtomicU64::new(fresh_dice().bits());
        let tap = Tap { hub, slow_us: AtomicU64::new(NEVER), pgbadger, dice };
        tap.set_slow(slow);
        tap
    }

    /// From here on statements that take so long are logged.
    pub fn set_slow(&self, slow: Option<Duration>) {
        self.slow_us.store(slow.map_or(NEVER, micros), Ordering::Relaxed);
        self.hub.want(slow.is_some());
    }

    /// Sees to it that a session notes its statements while somebody wants to know, and only then.
    #[inline]
    pub fn look(&self, machine: &mut Machine) {
        let wanted = self.hub.is_wanted();
        if wanted != machine.is_noting() {
            machine.set_noting(wanted);
        }
    }

    /// What has ended on a session's server connection, if it is noted.
    #[inline]
    pub fn hear(&self, machine: &mut Machine, client: &Client, server: &Server) {
        if let Some(settled) = machine.notes().and_then(|notes| notes.settle(Instant::now)) {
            self.tell(settled, Whose { client, server });
        }
    }

    /// A session leaves its server connection, whatever it is in the midst of.
    pub fn leave(&self, machine: &mut Machine, client: &Client, server: &Server) {
        if let Some(settled) = machine.take_notes().and_then(|notes| notes.leave(Instant::now)) {
            self.tell(settled, Whose { client, server });
        }
    }

    /// Tells those who want to know.
    #[cold]
    fn tell(&self, settled: Settled, whose: Whose<'_>) {
        let Settled { statements, mut took, mut waited } = settled;
        let (slow_us, together) = (self.slow_us.load(Ordering::Relaxed), statements.len());
        for statement in statements {
            let is_slow = micros(took + waited) >= slow_us;
            let watchers = self.watchers(whose.client);
            if is_slow || !watchers.is_empty() {
                let seen = Arc::new(Seen::new(&statement, whose, took, waited, together));
                if is_slow {
                    slow::log(&seen);
                    self.pgbadger.statement(&seen);
                }
                self.hub.tell(&watchers, &seen);
            }
            // The others were answered with the first.
            (took, waited) = (Duration::ZERO, Duration::ZERO);
        }
    }

    /// Those who are to be told of a statement of this client's.
    fn watchers(&self, client: &Client) -> SmallVec<[Arc<Watcher<Filter, Seen>>; 1]> {
        if !self.hub.is_watched() {
            return SmallVec::new();
        }
        let roll = self.roll();
        let wants =
            |watcher: &&Arc<Watcher<Filter, Seen>>| watcher.samples(roll) && watcher.filter.fits(client);
        self.hub.watchers().iter().filter(wants).cloned().collect()
    }
}

impl Tap {
    /// Below [`ALL`] (SplitMix64, by Steele, Lea and Flood).
    fn roll(&self) -> u64 {
        let step = 0x9E37_79B9_7F4A_7C15;
        let mut bits = self.dice.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % ALL
    }
}

impl Filter {
    fn fits(&self, client: &Client) -> bool {
        self.database.as_deref().is_none_or(|database| client.pool.database == database)
            && self.user.as_deref().is_none_or(|user| client.pool.user == user)
    }
}

/// Whether backslashes escape in every string, and whether the bytes of texts can be read at all: in some encodings one
/// that looks like a quote or a backslash is half of a character.
fn dialect(settings: &Settings) -> (bool, bool) {
    let escapes = settings.get("standard_conforming_strings") == Some("off");
    let encoding = settings.get("client_encoding").unwrap_or_default().to_ascii_uppercase();
    let odd = ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "GB18030", "UHC", "JOHAB"];
    (escapes, !odd.contains(&encoding.as_str()))
}
