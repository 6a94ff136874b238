//! A worker's end of the tap: which requests are noted, and what came of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use foldhash::fast::RandomState;
use groove_common::balance::Dice;
use groove_common::discovery::fresh_dice;
use groove_common::tap::ALL;
use smallvec::SmallVec;

use super::seen::Result;
use super::{Filter, Hub, Seen, Server, Verb, Watcher};
use crate::session::state::{Answer, Ticket};
use crate::wire::meta::Request;

/// Requests of a worker that are noted and not yet answered.
const WAITING_MAX: usize = 16_384;

/// What a worker notes.
#[derive(Debug)]
pub struct Probe {
    hub: Arc<Hub>,
    dice: RefCell<Dice>,
    /// Noted requests, by their sessions and tickets.
    waiting: RefCell<HashMap<(usize, Ticket), Begun, RandomState>>,
    /// How many these are, for a quick look.
    waiting_count: Cell<usize>,
}

/// A noted request on its way.
#[derive(Debug)]
pub struct Begun {
    seen: Seen,
    since: Instant,
    watchers: SmallVec<[Arc<Watcher>; 1]>,
}

/// Whose a request is.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The tenant's name, if there are tenants.
    pub tenant: Option<&'a str>,
    /// The name of the key's cluster.
    pub cluster: &'a str,
}

impl Probe {
    /// The end of one worker.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            dice: RefCell::new(fresh_dice()),
            waiting: RefCell::default(),
            waiting_count: Cell::new(0),
        }
    }

    /// Does anybody watch?
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.hub.is_watched()
    }

    /// Is the answer of a noted request to come?
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting_count.get() > 0
    }

    /// Notes a request if the dice say so and somebody wants to see it. `asker` is looked up only then.
    pub fn begin<'a>(
        &self,
        request: &Request<'_>,
        now: Instant,
        asker: impl FnOnce() -> Asker<'a>,
    ) -> Option<Begun> {
        let roll = self.dice.borrow_mut().bits() % ALL;
        let watchers = self.hub.watchers();
        if !watchers.iter().any(|watcher| watcher.samples(roll)) {
            return None;
        }
        let asker = asker();
        let wants =
            |watcher: &&Arc<Watcher>| watcher.samples(roll) && watcher.filter.fits(request.key, asker);
        let watchers: SmallVec<[Arc<Watcher>; 1]> = watchers.iter().filter(wants).cloned().collect();
        if watchers.is_empty() {
            return None;
        }
        let seen = Seen {
            at: SystemTime::UNIX_EPOCH,
            tenant: asker.tenant.map(str::to_owned),
            cluster: asker.cluster.to_owned(),
            verb: Verb::of(request),
            key: request.key.into(),
            result: Result::Error,
            value_len: None,
            took: std::time::Duration::ZERO,
            server: Server::Proxy,
            failure: None,
        };
        Some(Begun { seen, since: now, watchers })
    }

    /// Its answer is to come, for this session (told by its address) and ticket.
    pub fn wait(&self, session: usize, ticket: Ticket, begun: Begun) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_MAX {
            return begun.watchers.iter().for_each(|watcher| self.hub.count_dropped(watcher));
        }
        waiting.insert((session, ticket), begun);
        self.waiting_count.set(waiting.len());
    }

    /// An answer has come, to a request that may have been noted.
    #[cold]
    pub fn answered(&self, session: usize, ticket: Ticket, answer: &Answer) {
        let begun = {
            let mut waiting = self.waiting.borrow_mut();
            let begun = waiting.remove(&(session, ticket));
            self.waiting_count.set(waiting.len());
            if waiting.is_empty() && !self.is_watched() {
                // Nobody watches any more: nothing is held either.
                *waiting = HashMap::default();
            }
            begun
        };
        if let Some(begun) = begun {
            self.tell(begun, answer);
        }
    }

    /// A noted request is answered.
    pub fn tell(&self, begun: Begun, answer: &Answer) {
        let Begun { mut seen, since, watchers } = begun;
        seen.conclude(answer, since.elapsed());
        seen.at = SystemTime::now();
        self.hub.tell(&watchers, &Arc::new(seen));
    }
}

impl Begun {
    /// Who is asked.
    pub fn set_server(&mut self, server: Option<Server>) {
        if let Some(server) = server {
            self.seen.server = server;
        }
    }
}

impl Filter {
    fn fits(&self, key: &[u8], asker: Asker<'_>) -> bool {
        self.tenant.as_deref().is_none_or(|tenant| asker.tenant == Some(tenant))
            && self.cluster.as_deref().is_none_or(|cluster| asker.cluster == cluster)
            && key.starts_with(&self.prefix)
    }
}
