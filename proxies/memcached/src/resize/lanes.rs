//! The servers of one key as the mover asks them: a *lane* has a connection to each, and does one key at a time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use groove_common::ids::Address;

use super::line::Line;
use crate::error::Failure;
use crate::program::{Link, Node, Nodes, Told};
use crate::upstream::connection::Settings;
use crate::wire::meta::Request;

/// A lane.
pub(super) struct Lane {
    settings: Arc<Settings>,
    lines: RefCell<HashMap<Address, (Link, Line)>>,
    opened: Cell<u64>,
    /// Bytes of values that came and went.
    bytes: Cell<u64>,
}

/// The two servers of a key, by way of a lane.
pub(super) struct Pair<'l> {
    pub(super) lane: &'l Lane,
    pub(super) old: &'l Address,
    pub(super) new: &'l Address,
}

impl Lane {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, lines: RefCell::default(), opened: Cell::new(0), bytes: Cell::new(0) }
    }

    /// Bytes of values since the last time.
    pub(super) fn take_bytes(&self) -> u64 {
        self.bytes.take()
    }

    async fn ask(
        &self,
        address: &Address,
        request: &Request<'_>,
        pinned: Option<Link>,
    ) -> Result<Told, Failure> {
        // Out of the map while it is asked: if the caller gives up in between, it is gone for good.
        let known = self.lines.borrow_mut().remove(address);
        let (link, mut line) = match (known, pinned) {
            (Some((link, line)), None) => (link, line),
            (Some((link, line)), Some(pinned)) if link == pinned => (link, line),
            (Some(other), Some(_)) => {
                self.lines.borrow_mut().insert(address.clone(), other);
                return Err(Failure::Lost);
            }
            (None, Some(_)) => return Err(Failure::Lost),
            (None, None) => {
                let number = self.opened.get() + 1;
                self.opened.set(number);
                (Link(number), Line::open(address, &self.settings).await?)
            }
        };
        let reply = line.ask(request, &self.settings).await?;
        self.lines.borrow_mut().insert(address.clone(), (link, line));
        self.bytes.set(self.bytes.get() + reply.value.len() as u64);
        Ok(Told { reply, link })
    }
}

impl Nodes for Pair<'_> {
    async fn ask(&self, node: Node, request: &Request<'_>, pinned: Option<Link>) -> Result<Told, Failure> {
        match node {
            Node::Old => self.lane.ask(self.old, request, pinned).await,
            Node::New => self.lane.ask(self.new, request, pinned).await,
            Node::Front | Node::Overflow | Node::Replica(_) | Node::Home | Node::Part => {
                Err(Failure::NoServer)
            }
        }
    }
}
