//! What an operator has said of an app, beside its configuration: it is in maintenance, drained, or starts anew.

use crate::error::Error;
use groove_common::ids::Address;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// A person is at work: nobody knows for how long, but longer than a moment.
const MAINTENANCE_S: u64 = 30;

const MAINTENANCE: u8 = 1;
const DRAINED: u8 = 2;

/// What an operator has said of an app, whatever its configuration. It holds until it is taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Its clients are told that it is being worked on.
    pub maintenance: bool,
    /// No new exchanges begin.
    pub drained: bool,
    /// These endpoints get no new exchanges.
    pub drained_endpoints: BTreeSet<Address>,
}

impl Standing {
    /// Whether there is nothing to say.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// In a word, for lists.
    pub fn word(&self) -> &'static str {
        match (self.maintenance, self.drained, self.drained_endpoints.is_empty()) {
            (true, _, _) => "maintenance",
            (_, true, _) => "drained",
            (_, _, false) => "drained in part",
            (false, false, true) => "serving",
        }
    }
}

/// The same where exchanges look at it: one load for each.
#[derive(Debug, Default)]
pub struct Stand {
    shut: AtomicU8,
    /// The restart, of all that there were, since which its connections have to be new.
    restart: AtomicU32,
}

impl Stand {
    /// Takes on what an operator said.
    pub fn set(&self, standing: &Standing) {
        let maintenance = if standing.maintenance { MAINTENANCE } else { 0 };
        let drained = if standing.drained { DRAINED } else { 0 };
        self.shut.store(maintenance | drained, Ordering::Release);
    }

    /// Connections from before this restart end after their exchange.
    pub fn restart(&self, number: u32) {
        self.restart.store(number, Ordering::Release);
    }

    /// The last restart of this app; 0 if there was none.
    pub fn restarted(&self) -> u32 {
        self.restart.load(Ordering::Acquire)
    }

    /// Why no exchange may begin, if none may.
    pub fn refusal(&self, app: &str) -> Option<Error> {
        match self.shut.load(Ordering::Acquire) {
            0 => None,
            shut if shut & MAINTENANCE != 0 => Some(Error::Maintenance(Some(MAINTENANCE_S))),
            _ => Some(Error::Drained(app.to_owned())),
        }
    }
}
