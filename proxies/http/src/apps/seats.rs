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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{Roster, Standing};
    use crate::config;
    use crate::upstream::Ground;
    use groove_common::config::check_text;
    use groove_common::discovery::fresh_dice;
    use groove_common::telemetry::Registry;
    use tokio::runtime::Handle;

    fn app(host: &str) -> Arc<config::App> {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\napps: {{a: {{hosts: ['{host}'], endpoints: [127.0.0.1:9]}}}}"
        );
        let config: config::Config = check_text("http.yaml", &text).expect("a good configuration");
        Arc::clone(&config.apps["a"])
    }

    fn change(roster: &mut Roster, name: &str, app: Option<&Arc<config::App>>) {
        let change = roster.prepare([(name, app)], &config::Timeouts::default()).expect("a good change");
        roster.apply(change);
    }

    fn roster() -> (Roster, Arc<Directory>) {
        let ground = Ground::new(Handle::current(), Registry::new(1));
        let directory = Arc::new(Directory::default());
        (Roster::new(Arc::new(ground), Arc::clone(&directory)), directory)
    }

    #[tokio::test]
    async fn a_worker_sees_each_change_with_its_next_look_and_what_has_begun_keeps_its_seat() {
        let (mut roster, directory) = roster();
        let mut seats = Seats::default();
        let mut at = |host: &str, directory: &Directory| {
            seats.find(host.as_bytes(), directory).map(|seat| seat.app.name.to_string())
        };
        assert_eq!(at("x.shop.test", &directory), None);
        change(&mut roster, "all", Some(&app("*")));
        assert_eq!(at("x.shop.test", &directory).as_deref(), Some("all"));
        change(&mut roster, "wild", Some(&app("*.shop.test")));
        assert_eq!(at("x.shop.test", &directory).as_deref(), Some("wild"), "the better answer is found");
        change(&mut roster, "exact", Some(&app("x.shop.test")));
        assert_eq!(at("X.shop.test:80", &directory).as_deref(), Some("exact"));
        change(&mut roster, "exact", Some(&app("y.shop.test")));
        assert_eq!(at("x.shop.test", &directory).as_deref(), Some("wild"));
        change(&mut roster, "wild", None);
        change(&mut roster, "all", None);
        assert_eq!(at("x.shop.test", &directory), None);
        assert_eq!(at("y.shop.test", &directory).as_deref(), Some("exact"));

        let seat = seats.find(b"y.shop.test", &directory).expect("a seat");
        change(&mut roster, "exact", None);
        assert!(seats.find(b"y.shop.test", &directory).is_none());
        let upstream = &seat.app.upstreams[0];
        assert!(seat.pick(upstream, &Ask::default(), &mut fresh_dice()).is_some(), "what has begun goes on");
    }

    #[tokio::test]
    async fn seats_that_nobody_asks_for_or_that_are_outdated_go() {
        let (mut roster, directory) = roster();
        change(&mut roster, "a", Some(&app("a.test")));
        change(&mut roster, "b", Some(&app("b.test")));
        let mut seats = Seats::default();
        seats.find(b"a.test", &directory).expect("a seat");
        seats.find(b"b.test", &directory).expect("a seat");
        change(&mut roster, "b", None);
        seats.sweep(&directory);
        assert_eq!(seats.by_host.len(), 1, "the outdated one went");
        seats.sweep(&directory);
        assert!(seats.is_empty(), "nobody has asked since");
    }

    #[tokio::test]
    async fn an_operators_word_outlives_the_app_that_it_was_said_of() {
        let (mut roster, _directory) = roster();
        change(&mut roster, "a", Some(&app("a.test")));
        let address = "127.0.0.1:9".parse().expect("an address");
        let drained = Standing { drained_endpoints: [address].into(), ..Standing::default() };
        roster.stand("a", drained);
        change(&mut roster, "a", None);
        change(&mut roster, "a", Some(&app("a.test")));
        let state = |roster: &Roster| {
            roster.get("a").expect("an app").upstreams[0].status()["endpoints"][0]["state"].clone()
        };
        assert_eq!(state(&roster), "drained");
        roster.stand("a", Standing::default());
        assert_eq!(state(&roster), "up");
    }
}
