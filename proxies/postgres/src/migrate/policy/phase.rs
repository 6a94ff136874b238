//! How far a migration is, and what a verb does about it.
//!
//! ```text
//! start ─► Preparing ─► Copying ─► Synced ─► Ready{Source} ◄──── rollback ───┐
//!                                               │ cutover                    │
//!                                    Gate ◄─────┘                            │
//!                     Undoing ◄───── │ ─────► Switched ─► Ready{Target} ──────┘
//!                        │ (as before)                        │ finish
//!                        └─► Ready                            └─► Finishing ─► (nothing is left)
//! ```
//!
//! Until `Switched` is written everything is undone by leaving the servers as they were; from there on it is only done
//! again. Each phase is written before what it stands for begins.

use groove_common::ids::Address;
use serde::{Deserialize, Serialize};

use super::verification::Verification;

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// Where the database was.
    Source,
    /// Where it goes.
    Target,
}

impl Side {
    /// The other one.
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Roles, database, tables and keys are made on the target.
    Preparing,
    /// The rows are copied, and what changes meanwhile follows.
    Copying,
    /// All rows are there; indexes, constraints, triggers and the way back are made.
    Synced,
    /// One server serves, the other follows.
    Ready {
        /// Which one serves.
        serving: Side,
    },
    /// The gate may be closed and the server that serves fenced.
    Gate {
        /// Which one shall serve.
        to: Side,
    },
    /// The same, and it is decided that nothing shall come of it.
    Undoing {
        /// Which one shall not serve.
        to: Side,
    },
    /// Decided: the other one serves. What is left to do is done again until it is done.
    Switched {
        /// Which one serves.
        to: Side,
        /// From here on in its WAL the other one follows.
        lsn: String,
    },
    /// Everything of the migration's is being removed.
    Finishing {
        /// Which one serves.
        serving: Side,
    },
}

/// What is known of a migration, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Of this form.
    pub(crate) version: u32,
    /// Unlike any other migration's; in the names of slots and subscriptions.
    pub(crate) id: String,
    /// The database, as the proxy's clients name it.
    pub(crate) database: String,
    /// All names by which the proxy's clients reach it, that one included.
    pub(crate) names: Vec<String>,
    /// What the servers call it.
    pub(crate) dbname: String,
    /// Where it was.
    pub(crate) source: Address,
    /// Where it goes.
    pub(crate) target: Address,
    /// When it began, as in RFC 3339.
    pub(crate) begun: String,
    /// How far it is.
    pub(crate) phase: Phase,
    /// The database's bound on connections, which a fence changes.
    pub(crate) connection_limit: i64,
    /// `wal_retrieve_retry_interval` as it was set by `ALTER SYSTEM` on source and target, if it was.
    pub(crate) retry_interval: [Option<String>; 2],
    /// Tables whose replica identity was changed, and what it was.
    pub(crate) identities: Vec<(String, String)>,
    /// The database on the target is of our making.
    pub(crate) made_database: bool,
    /// What became of each cutover and rollback.
    #[serde(default)]
    pub(crate) cuts: Vec<Cut>,
}

/// The form of a journal that this program writes.
pub(crate) const VERSION: u32 = 1;
/// Cutovers that a journal remembers.
pub(crate) const CUTS_MAX: usize = 20;

/// A cutover or rollback that was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// When, as in RFC 3339.
    pub(crate) at: String,
    /// Who serves since.
    pub(crate) to: Side,
    /// For how long the gate was closed; none if the command did not live to see it.
    pub(crate) gate_ms: Option<f64>,
    /// Each step and its milliseconds.
    pub(crate) steps: Vec<(String, f64)>,
    /// Whether both sides had the same rows when the gate was closed.
    pub(crate) verification: Verification,
}

impl Journal {
    /// Where a side is.
    pub(crate) fn address(&self, side: Side) -> &Address {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// What a side's subscription and the other side's slot for it are called.
    pub(crate) fn subscription(&self, on: Side) -> String {
        let direction = match on {
            Side::Target => "forward",
            Side::Source => "back",
        };
        format!("groove_{direction}_{}", self.id)
    }

    /// What a side's publication is called.
    pub(crate) fn publication(&self, on: Side) -> String {
        self.subscription(on.other())
    }

    /// Which side serves as of this phase.
    pub(crate) fn serving(&self) -> Side {
        match self.phase {
            Phase::Preparing | Phase::Copying | Phase::Synced => Side::Source,
            Phase::Ready { serving } | Phase::Finishing { serving } => serving,
            Phase::Gate { to } | Phase::Undoing { to } => to.other(),
            Phase::Switched { to, .. } => to,
        }
    }

    /// How far it is, in words.
    pub(crate) fn told(&self) -> String {
        let (source, target) = (&self.source, &self.target);
        match &self.phase {
            Phase::Preparing => format!("roles, tables and keys are made on {target}"),
            Phase::Copying => format!("rows are copied to {target}"),
            Phase::Synced => format!("indexes and the way back are made on {target}"),
            Phase::Ready { serving: Side::Source } => format!("{source} serves, {target} follows"),
            Phase::Ready { serving: Side::Target } => format!("{target} serves, {source} follows"),
            Phase::Gate { to } => format!("a move to {} was begun and not decided", self.address(*to)),
            Phase::Undoing { to } => format!("a move to {} is being undone", self.address(*to)),
            Phase::Switched { to, .. } => {
                format!("{} serves; what follows from that is not done yet", self.address(*to))
            }
            Phase::Finishing { .. } => "what the migration has made is being removed".to_owned(),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Copy, and let it follow.
    Start,
    /// Let the target serve.
    Cutover,
    /// Let the source serve again.
    Rollback,
    /// Remove what the migration has made.
    Finish,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// From the beginning.
    Prepare,
    /// Wait for the rows.
    Copy,
    /// Make what comes after the rows.
    Complete,
    /// Let this side serve.
    Cut(Side),
    /// Open the gate to the side that served before; then look again.
    Undo(Side),
    /// Do the rest of a decided switch; then look again.
    Redo(Side),
    /// Remove everything; this side goes on serving.
    Clear(Side),
    /// There is nothing to do, and why.
    Done(&'static str),
    /// That is not possible now, and why.
    Refuse(&'static str),
}

/// What a verb does in a phase. No phase is no migration.
pub(crate) fn next(verb: Verb, phase: Option<&Phase>) -> Step {
    let Some(phase) = phase else {
        return match verb {
            Verb::Start => Step::Prepare,
            Verb::Cutover | Verb::Rollback | Verb::Finish => {
                Step::Refuse("there is no migration of this database: `start` begins one")
            }
        };
    };
    match (phase, verb) {
        // A half-done switch comes first, whatever is asked for.
        (Phase::Gate { to } | Phase::Undoing { to }, _) => Step::Undo(*to),
        (Phase::Switched { to, .. }, _) => Step::Redo(*to),
        // What was half made is removed by name and made again.
        (Phase::Preparing, Verb::Start) => Step::Clear(Side::Source),
        (Phase::Copying, Verb::Start) => Step::Copy,
        (Phase::Synced, Verb::Start) => Step::Complete,
        (Phase::Preparing | Phase::Copying | Phase::Synced, Verb::Rollback) => Step::Clear(Side::Source),
        (Phase::Preparing | Phase::Copying | Phase::Synced, Verb::Cutover | Verb::Finish) => {
            Step::Refuse("the copy is not complete: `start` goes on with it, `rollback` removes it")
        }
        (Phase::Ready { .. }, Verb::Start) => Step::Done("the copy is complete and follows"),
        (Phase::Ready { serving: Side::Source }, Verb::Cutover) => Step::Cut(Side::Target),
        (Phase::Ready { serving: Side::Target }, Verb::Cutover) => Step::Done("the target serves already"),
        (Phase::Ready { serving: Side::Source }, Verb::Rollback) => {
            Step::Done("the source serves; `finish` ends the migration and leaves it so")
        }
        (Phase::Ready { serving: Side::Target }, Verb::Rollback) => Step::Cut(Side::Source),
        (Phase::Ready { serving } | Phase::Finishing { serving }, Verb::Finish) => Step::Clear(*serving),
        (Phase::Finishing { .. }, Verb::Start | Verb::Cutover | Verb::Rollback) => {
            Step::Refuse("the migration is being removed: `finish` goes on with it")
        }
    }
}
