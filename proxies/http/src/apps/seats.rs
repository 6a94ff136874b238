//! The apps that one worker's clients ask for: found once, then known until they change.

use super::directory::Directory;
use crate::route::HostName;
use crate::table::App;
use crate::upstream::Upstream;
use foldhash::fast::RandomState;
use groove_common::balance::{Dice, least_loaded};
use groove_common::discovery::{Exchange, Member, Policy, Reader};
use groove_common::ids::EndpointId;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

/// Hosts that a worker remembers. Over it all are forgotten: a star can be asked for by any name.
const SEATS_MAX: usize = 1 << 16;

/// Readers of the clusters that were asked for; most apps have one.
type Readers = SmallVec<[(Arc<Upstream>, Reader); 1]>;

/// An app as one worker sees it, with its readers of the clusters' snapshots. An exchange keeps the seat it began with.
pub struct Seat {
    /// The app.
    pub app: Arc<App>,
    readers: RefCell<Readers>,
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

    /// The least loaded endpoint but those of `failed`. The next exchange counts as begun with it.
    pub fn pick(&self, upstream: &Arc<Upstream>, failed: &[EndpointId], dice: &mut Dice) -> Option<Exchange> {
        let mut readers = self.readers.borrow_mut();
        let known = readers.iter().position(|(known, _)| ptr::eq(&raw const **known, &raw const **upstream));
        let index = known.unwrap_or_else(|| {
            readers.push((Arc::clone(upstream), upstream.cluster.reader()));
            readers.len() - 1
        });
        let snapshot = readers.get_mut(index)?.1.get();
        if failed.is_empty() {
            let member = match snapshot.members.as_slice() {
                [only] => Some(only).filter(|only| only.admits()),
                _ => snapshot.pick(Policy::LeastLoaded, upstream.cluster.now(), dice),
            };
            return member.map(|member| member.endpoint.begin());
        }
        let others: Vec<Member> =
            snapshot.members.iter().filter(|member| !failed.contains(&member.endpoint.id)).cloned().collect();
        let least = least_loaded(&others, upstream.cluster.now(), dice)?;
        others.get(least).map(|member| member.endpoint.begin())
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
            readers: RefCell::default(),
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
