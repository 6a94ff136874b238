//! The parts of one version: stored, fetched, touched, deleted, a few at a time.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};

use super::head::{Head, Part};
use super::{Chunked, LEASE_S, STAGED_S, exptime_of_parts};
use crate::error::Failure;
use crate::program::steps::{Stop, Swap};
use crate::program::{Event, Node, Nodes, Told};
use crate::wire::meta::{Delete, Get, Mode, Op, Request, Status, Store, Wants};
use crate::wire::number;

/// Parts of one value that are on their way at once.
const AT_ONCE: usize = 4;

/// Parts of a value without an expiry are given another lease when they have less than this.
const LEASE_LEFT_S_MIN: u64 = LEASE_S.unsigned_abs() as u64 / 2;

impl<N: Nodes> Chunked<'_, N> {
    /// Stores the parts of `value`, for as long as it takes until the head is in. What is there already from an
    /// attempt before serves again.
    pub(super) async fn stage(&self, value: &Bytes) -> Result<Head, Stop> {
        if let Some(head) = self.staged.get() {
            return Ok(head);
        }
        let id = self.id.get();
        self.id.set(id.wrapping_add(1));
        let head = Head::of(value, id, self.at.part_len).ok_or(Failure::TooLarge)?;
        self.staged.set(Some(head));
        let store = async |part: Part| {
            let value = value.slice(part.from..part.to);
            let store = Store { exptime: STAGED_S, ..Store::new(Mode::Set, &value) };
            match self.steps.at(&part.key).store(Node::Part, store).await? {
                Swap::Done(_) => Ok(()),
                Swap::Exists | Swap::Nothing => Err(Stop::Failed(Failure::Nonsense)),
            }
        };
        let mut stored = stream::iter(head.parts()).map(store).buffer_unordered(AT_ONCE);
        while let Some(stored) = stored.next().await {
            stored?;
        }
        Ok(head)
    }

    /// The value, and how long the part that goes first has to live. None if a part is not there.
    pub(super) async fn fetch(&self, head: Head) -> Result<Option<(Bytes, u64)>, Stop> {
        if head.len() > self.at.value_len_max {
            return Err(Failure::TooLarge.into());
        }
        self.steps.nodes.room(head.len()).await;
        let wants = Wants::VALUE.and(Wants::TTL);
        let get = async |part: Part| {
            let told = self.part(&part.key, Op::Get(Get { wants, ..Get::default() })).await?;
            let is_whole =
                told.reply.status == Status::Value && told.reply.value.len() == part.to - part.from;
            Ok::<_, Failure>(is_whole.then_some(told))
        };
        let mut parts = stream::iter(head.parts()).map(get).buffered(AT_ONCE);
        let (mut value, mut left_s) = (BytesMut::with_capacity(head.len()), u64::MAX);
        while let Some(part) = parts.next().await {
            let Some(Told { reply, .. }) = part? else { return Ok(None) };
            value.extend_from_slice(&reply.value);
            left_s = reply.flag(b't').and_then(number::unsigned).map_or(left_s, |own| own.min(left_s));
        }
        let value = value.freeze();
        Ok(head.is_of(&value).then_some((value, left_s)))
    }

    /// Gives the parts a life that goes with a head's of `exptime`. False if one is not there.
    pub(super) async fn touch(&self, head: Head, exptime: i32) -> Result<bool, Failure> {
        if exptime < 0 {
            self.remove(head).await;
            return Ok(true);
        }
        let touch = Some(exptime_of_parts(exptime, self.at.now_s));
        let touch = async |part: Part| self.part(&part.key, Op::Get(Get { touch, ..Get::default() })).await;
        let mut touched = stream::iter(head.parts()).map(touch).buffer_unordered(AT_ONCE);
        let mut are_all_there = true;
        while let Some(told) = touched.next().await {
            are_all_there &= told?.reply.status == Status::Done;
        }
        Ok(are_all_there)
    }

    /// Gives parts that are about to end another lease, if their head has no end.
    pub(super) async fn renew(&self, head: Head, left_s: u64, told: &Told) {
        if left_s >= LEASE_LEFT_S_MIN {
            return;
        }
        let is_endless = |told: &Told| told.reply.flag(b't') == Some(b"-1");
        let get = Op::Get(Get { wants: Wants::TTL, ..Get::default() });
        if is_endless(told) || self.ask(get, None).await.is_ok_and(|told| is_endless(&told)) {
            // What fails is tried by the next reader.
            _ = self.touch(head, 0).await;
        }
    }

    /// Deletes the parts. What cannot be deleted is counted, and expires in time.
    pub(super) async fn remove(&self, head: Head) {
        let delete = async |part: Part| self.part(&part.key, Op::Delete(Delete::default())).await;
        let mut deleted = stream::iter(head.parts()).map(delete).buffer_unordered(AT_ONCE);
        while let Some(told) = deleted.next().await {
            let is_gone = told.is_ok_and(|told| matches!(told.reply.status, Status::Done | Status::NotFound));
            if !is_gone {
                self.steps.nodes.note(Event::PartLeft);
            }
        }
    }

    async fn part(&self, key: &[u8], op: Op<'_>) -> Result<Told, Failure> {
        self.steps.nodes.ask(Node::Part, &Request { key, is_coded: false, op }, None).await
    }
}
