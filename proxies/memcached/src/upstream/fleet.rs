//! The servers of a cluster whose values may be in parts, as one worker reaches them: parts are anywhere among them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use groove_common::balance::{Dice, Hasher, Placement};
use groove_common::discovery::{Cluster, Snapshot};
use groove_common::telemetry::{Counter, Registry};

use super::local::Link;
use super::plan::{Seat, now_s};
use crate::error::Failure;
use crate::program::chunks::At;
use crate::program::{Event, Node};

/// What is counted of a cluster's values in parts.
#[derive(Debug, Clone)]
pub struct Metrics {
    stored: Counter,
    read: Counter,
    lost: Counter,
    left: Counter,
}

/// How a cluster's values are stored in parts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest part.
    pub part_len: usize,
    /// The longest value.
    pub value_len_max: usize,
    /// How a part finds its server.
    pub hasher: Hasher,
    /// What is counted.
    pub metrics: Metrics,
}

/// The servers at one moment.
pub struct Fleet {
    pub(super) settings: Arc<Settings>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) placement: Arc<Placement>,
    /// By slot.
    pub(super) links: Vec<Option<Link>>,
    /// For the names of versions.
    pub(super) dice: RefCell<Dice>,
}

impl Metrics {
    /// Of this cluster.
    pub fn new(registry: &Registry, cluster: &str) -> Self {
        let values = |event| {
            let help = "Values in parts that were stored, put together, or lost with one of their parts";
            let labels = [("cluster", cluster), ("event", event)];
            registry.counter("groove_memcached_chunked_values", help, &labels)
        };
        let help = "Parts of values that could not be deleted and stay until they expire";
        Self {
            stored: values("stored"),
            read: values("read"),
            lost: values("lost"),
            left: registry.counter("groove_memcached_chunks_left", help, &[("cluster", cluster)]),
        }
    }

    fn count(&self, event: Event) {
        match event {
            Event::WholeStored => self.stored.inc(),
            Event::WholeRead => self.read.inc(),
            Event::WholeLost => self.lost.inc(),
            Event::PartLeft => self.left.inc(),
            Event::SpillLost | Event::Copied | Event::Again => (),
        }
    }
}

impl Fleet {
    /// For a program that begins now.
    pub fn at(&self) -> At {
        let mut dice = self.dice.borrow_mut();
        let id = u128::from(dice.bits()) << 64 | u128::from(dice.bits());
        let Settings { part_len, value_len_max, .. } = *self.settings;
        At { now_s: now_s(), id, part_len, value_len_max }
    }

    /// The server of a key, over the connection that this session uses.
    pub(super) fn seat(&self, node: Node, key: &[u8], session: usize) -> Result<Seat, Failure> {
        let (part, hash) = self.settings.hasher.hash(key);
        let slot = self.placement.owner(part, hash).ok_or(Failure::NoServer)?;
        let member = self.snapshot.at_slot(slot).ok_or(Failure::NoServer)?;
        let link = self.links.get(member.endpoint.slot).and_then(Option::as_ref);
        let connection = link.and_then(|link| link.of(session)).ok_or(Failure::NoServer)?;
        Ok(Seat {
            node,
            connection: Rc::clone(connection),
            cluster: Arc::clone(&self.cluster),
            endpoint: member.endpoint.id,
        })
    }

    pub(super) fn count(&self, event: Event) {
        self.settings.metrics.count(event);
    }
}
