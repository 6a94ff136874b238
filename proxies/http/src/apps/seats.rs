//! The apps that one worker's clients ask for: found once, then known until they change.

use super::directory::Directory;
use crate::balance::{Ask, Chooser};
use crate::queue::Grant;
use crate::route::HostName;
use crate::table::App;
use crate::upstream::Upstream;
use foldhash::fast::RandomState;
use groove_common::balance::Dice;
use groove_common::discovery::{Policy, Reader};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// Hosts that a worker remembers. Over it all are forgotten: a star can be asked for by any name.
const SEATS_MAX: usize = 1 << 16;

/// An upstream that was asked for, as one worker sees it.
struct Known {
    upstream: Arc<Upstream>,
    reader: Reader,
    /// Whose turn it is, where that is to be remembered.
    chooser: Option<Box<Chooser>>,
}

/// An app as one worker sees it, with its readers of the clusters' snapshots. An exchange keeps the seat it began with.
pub struct Seat {
    /// The app.
    pub app: Arc<App>,
    /// Most apps have one.
    known: RefCell<SmallVec<[Known; 1]>>,
    /// Of the directory, where another host that comes may be the better answer.
    generation: Option<u64>,
    /// Asked for since the last sweep.
    is_used: Cell<bool>,
}

impl Seat {
    /// A seat that nothing leads to any more is not found again.
    fn holds(&self, directory: &Directory) -> bool {
        !self.app.is_retired() && self.generation.is_none_or(|seen| seen == directory.generation())
    }

    /// Whether there is any endpoint, usable or not.
    pub fn has_members(&self, upstream: &Arc<Upstream>) -> bool {
        !upstream.cluster.snapshot().members.is_empty()
    }

    /// An endpoint for a request, by its upstream's plan; not one of those that it was tried with. The exchange counts
    /// as begun. For upstreams without a queue.
    pub(crate) fn pick(&self, upstream: &Arc<Upstream>, ask: &Ask<'_>, dice: &mut Dice) -> Option<Grant> {
        let mut known = self.known.borrow_mut();
        let index = known.iter().position(|known| Arc::ptr_eq(&known.upstream, upstream));
        let index = index.unwrap_or_else(|| {
            let (upstream, reader) = (Arc::clone(upstream), upstream.cluster.reader());
            known.push(Known { upstream, reader, chooser: None });
            known.len() - 1
        });
        let known = known.get_mut(index)?;
        let snapshot = known.reader.get();
        if upstream.plan.is_none() && ask.failed.is_empty() {
            let member = match snapshot.members.as_slice() {
                [only] => Some(only).filter(|only| !only.is_draining && only.admits()),
                _ => snapshot.pick(Policy::LeastLoaded, upstream.cluster.now(), dice),
            };
            return member.map(|member| Grant { exchange: member.endpoint.begin(), new_home: None });
        }
        let chooser = known.chooser.get_or_insert_default();
        // Without a plan, this is a request that has failed somewhere: seldom enough for one that is made here.
        let plan = upstream.plan.clone().unwrap_or_default();
        chooser.choose(&plan, snapshot, *ask, upstream.cluster.now(), dice).map(|choice| Grant::of(&choice))
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("app", &self.app.name).finish_non_exhaustive()
    }
}

/// One worker's seats, by the host that was asked for.
#[derive(Debug, Default)]
pub struct Seats {
    by_host: HashMap<Box<[u8]>, Rc<Seat>, RandomState>,
}

impl Seats {
    /// The app that answers for a host.
    pub fn find(&mut self, host: &[u8], directory: &Directory) -> Option<Rc<Seat>> {
        let name = HostName::of(host);
        let key = name.as_ref().map_or(&[][..], HostName::exact);
        if let Some(seat) = self.by_host.get(key).filter(|seat| seat.holds(directory)) {
            seat.is_used.set(true);
            return Some(Rc::clone(seat));
        }
        // Before the look: what changes after it is seen the next time.
        let generation = directory.generation();
        let Some(found) = directory.find(name.as_ref()) else {
            self.by_host.remove(key);
            return None;
        };
        let seat = Rc::new(Seat {
            app: found.app,
            known: RefCell::default(),
            generation: (!found.is_exact).then_some(generation),
            is_used: Cell::new(true),
        });
        if self.by_host.len() >= SEATS_MAX {
            self.by_host.clear();
        }
        self.by_host.insert(key.into(), Rc::clone(&seat));
        Some(seat)
    }

    /// Forgets what nothing leads to any more, and what nobody has asked for since the last time.
    pub fn sweep(&mut self, directory: &Directory) {
        self.by_host.retain(|_, seat| seat.is_used.replace(false) && seat.holds(directory));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_host.is_empty()
    }
}
