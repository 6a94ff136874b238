//! A session that listens through its pool: what it hears there, and what it has said of that by `UNLISTEN`.
//!
//! What it listens to the server is asked, once a transaction that may have changed that is over. `UNLISTEN` the server
//! cannot be asked about, as its connection does not listen: that is read off texts, carried out with the server's
//! `UNLISTEN`, and taken back with its `ROLLBACK`. A rollback to a savepoint takes back all of its transaction, which
//! leaves a session with what it hears rather than without.

use std::collections::{BTreeSet, VecDeque};

use super::Machine;
use crate::listen::{Channel, Subscription};
use crate::session::settings::Settings;
use crate::sql::{Reading, Unlisten};
use crate::wire::backend::{Status, notification};

/// Channels of one session; who has more keeps its server connection.
const CHANNELS_MAX: usize = 1000;

/// A session that listens through its pool.
#[derive(Debug)]
pub struct Listening {
    /// Its place there.
    pub subscription: Subscription,
    /// What it hears there, and so not from its own server connection.
    channels: BTreeSet<Channel>,
    /// Sent to the server, in order.
    said: VecDeque<Unlisten>,
    /// Done in a transaction that is open.
    done: Vec<Unlisten>,
    /// Done for good.
    settled: Vec<Unlisten>,
    /// Something was sent: the session hears its own notifications before the end of its transaction.
    has_notified: bool,
    /// Something failed since the server was last at rest.
    has_failed: bool,
}

impl Listening {
    /// Whether it hears what is sent there.
    pub fn hears(&self, channel: &[u8]) -> bool {
        self.channels.contains(channel)
    }
}

impl Machine {
    /// What this session hears through its pool, if it listens.
    pub fn listening(&self) -> Option<&Listening> {
        self.listening.as_deref()
    }

    /// Whether a notification may be told at this moment: outside of transactions, between messages.
    pub fn may_notify(&self) -> bool {
        self.status == Status::Idle && self.expected.is_empty() && self.server_left == 0
    }

    /// Whether these channels, too, may be heard through the pool by a session with these settings.
    pub fn may_listen(&self, channels: &[Channel], settings: &Settings) -> bool {
        let held = self.listening().map_or(0, |listening| listening.channels.len());
        // The hub's connection speaks this one, see `listen::hub`.
        let same_encoding = settings.get("client_encoding") == Some("UTF8")
            || settings.get("server_encoding") == Some("SQL_ASCII");
        same_encoding && held + channels.len() <= CHANNELS_MAX
    }

    /// Channels are heard through the pool from now on.
    pub fn listens(&mut self, subscription: Option<Subscription>, channels: Vec<Channel>) {
        if let Some(subscription) = subscription {
            self.listening = Some(Box::new(Listening {
                subscription,
                channels: BTreeSet::new(),
                said: VecDeque::new(),
                done: Vec::new(),
                settled: Vec::new(),
                has_notified: false,
                has_failed: false,
            }));
        }
        if let Some(listening) = &mut self.listening {
            listening.channels.extend(channels);
        }
    }

    /// Channels that the session has left, but for those that its server connection was found to `listen` to: it has
    /// come back to them.
    pub fn take_left(&mut self, found: &[Channel]) -> Vec<Channel> {
        let Some(listening) = &mut self.listening else { return Vec::new() };
        let settled = std::mem::take(&mut listening.settled);
        let is_left = |channel: &Channel| {
            settled.iter().any(|unlisten| match unlisten {
                Unlisten::All => true,
                Unlisten::One(name) => **name == **channel,
            })
        };
        let left = listening.channels.iter().filter(|channel| is_left(channel) && !found.contains(channel));
        left.cloned().collect()
    }

    /// Whether notifications were sent; asked once.
    pub fn take_notified(&mut self) -> bool {
        self.listening.as_mut().is_some_and(|listening| std::mem::take(&mut listening.has_notified))
    }

    /// Channels are heard no more.
    pub fn unlistens(&mut self, channels: &[Channel]) {
        let Some(listening) = &mut self.listening else { return };
        listening.subscription.leave(channels);
        listening.channels.retain(|channel| !channels.contains(channel));
        if listening.channels.is_empty() {
            self.listening = None;
        }
    }

    /// Whether channels were left that are still heard.
    pub(super) fn has_left(&self) -> bool {
        self.listening().is_some_and(|listening| !listening.settled.is_empty() || listening.has_notified)
    }

    /// Whether what the session's own connection hears is for the client: not what it hears through the pool.
    pub(super) fn passes_notification(&self, body: &[u8]) -> bool {
        let Some(listening) = self.listening() else { return true };
        notification(body).map_or(true, |(channel, _)| !listening.hears(channel))
    }

    /// A text is on its way.
    pub(super) fn note_unlistens(&mut self, reading: &Reading) {
        if let Some(listening) = &mut self.listening {
            listening.said.extend(reading.unlistens.iter().cloned());
            listening.has_notified |= reading.notifies;
        }
    }

    /// A command of the client's is done.
    pub(super) fn note_tag(&mut self, tag: &[u8]) {
        let Some(listening) = &mut self.listening else { return };
        match tag {
            b"UNLISTEN" => listening.done.extend(listening.said.pop_front()),
            b"DISCARD ALL" => listening.done.push(Unlisten::All),
            b"COMMIT" => listening.settled.append(&mut listening.done),
            b"ROLLBACK" => listening.done.clear(),
            _ => {}
        }
    }

    /// Something of the client's has failed.
    pub(super) fn note_failure(&mut self) {
        if let Some(listening) = &mut self.listening {
            listening.has_failed = true;
        }
    }

    /// The server is ready for more of the client's.
    pub(super) fn heard_ready(&mut self) {
        let is_settled = self.status == Status::Idle;
        let owes_nothing = self.expected.is_empty();
        let Some(listening) = &mut self.listening else { return };
        if is_settled {
            if std::mem::take(&mut listening.has_failed) {
                listening.done.clear();
            }
            listening.settled.append(&mut listening.done);
        }
        if owes_nothing {
            // What did not run.
            listening.said.clear();
        }
    }
}
