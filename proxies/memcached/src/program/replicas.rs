//! A key with copies in several clusters: written to all, read from any.
//!
//! The main copy is [`Node::Replica`] 0. It alone decides over what depends on what is there (add, cas, incr, …),
//! and CAS values are its own. What such an operation changes is deleted from the other copies, which then miss,
//! and a miss is looked up elsewhere. A copy whose server is known to be away is left out, so what it has when it
//! comes back may be old; a copy that fails in the middle of a write fails the write.

use std::future::Future;
use std::pin::pin;

use futures_util::future::{Either, join_all, select};

use super::{Node, Nodes, Origin, Outcome, Told};
use crate::error::Failure;
use crate::wire::meta::{Delete, Get, Mode, Op, Request, Status, Store, Wants};

const MAIN: Node = Node::Replica(0);

/// Which copies there are, and which is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// How many, the main one included.
    pub count: u8,
    /// Reads begin with this one.
    pub first: u8,
}

impl Copies {
    fn others(self) -> impl Iterator<Item = Node> {
        (1..self.count).map(Node::Replica)
    }

    fn order(self) -> impl Iterator<Item = Node> {
        (0..self.count).map(move |n| Node::Replica((n + self.first) % self.count.max(1)))
    }
}

/// Carries out what a client asked. When `late` is ready, a read that is not answered asks another copy too.
///
/// # Errors
///
/// Why nothing can be told; it may have been done all the same.
pub async fn run<N: Nodes>(
    nodes: &N,
    copies: Copies,
    request: &Request<'_>,
    late: impl Future<Output = ()>,
) -> Result<Outcome, Failure> {
    let (node, told) = match request.op {
        Op::Get(get) if is_plain(&get) => read(nodes, copies, request, late).await?,
        Op::Store(store) if is_unconditional(&store) => (MAIN, write(nodes, copies, request).await?),
        Op::Delete(delete) if delete == (Delete { wants: delete.wants, ..Delete::default() }) => {
            (MAIN, write(nodes, copies, request).await?)
        }
        Op::Debug => (MAIN, nodes.ask(MAIN, request, None).await?),
        Op::Get(_) | Op::Store(_) | Op::Delete(_) | Op::Arith(_) => {
            (MAIN, change(nodes, copies, request).await?)
        }
    };
    let origin = Some(Origin { node, link: told.link });
    Ok(Outcome { reply: told.reply, origin })
}

/// Can any copy answer it, and does it change none?
fn is_plain(get: &Get) -> bool {
    let Get { wants, touch, vivify, recache, recache_first: _, new_cas, compare, is_peek: _ } = *get;
    let own = Wants::CAS.and(Wants::HIT).and(Wants::LAST);
    wants.only(own) == Wants::NOTHING
        && touch.is_none()
        && vivify.is_none()
        && recache.is_none()
        && new_cas.is_none()
        && compare.is_none()
}

/// Does it store whatever is there?
fn is_unconditional(store: &Store<'_>) -> bool {
    store.mode == Mode::Set && store.compare.is_none() && !store.invalidate
}

/// Asks one copy after the other until one has it; a second one at once if the first is late.
async fn read<N: Nodes>(
    nodes: &N,
    copies: Copies,
    request: &Request<'_>,
    late: impl Future<Output = ()>,
) -> Result<(Node, Told), Failure> {
    let ask = async |node| (node, nodes.ask(node, request, None).await);
    let mut order = copies.order();
    let mut said = Said::default();
    let first = pin!(ask(order.next().unwrap_or(MAIN)));
    match select(first, pin!(late)).await {
        Either::Left(((node, told), _)) => said.hear(node, told),
        Either::Right(((), first)) => match order.next() {
            None => {
                let (node, told) = first.await;
                said.hear(node, told);
            }
            Some(second) => {
                let (Either::Left(((node, told), _)) | Either::Right(((node, told), _))) =
                    select(first, pin!(ask(second))).await;
                said.hear(node, told);
            }
        },
    }
    for node in copies.order() {
        if said.is_found() {
            break;
        }
        if !said.heard.contains(&Some(node)) {
            said.hear(node, nodes.ask(node, request, None).await);
        }
    }
    said.verdict()
}

/// Copies that have been heard of at most: a lost race asks again, which does no harm.
const HEARD_MAX: usize = 2;

/// What the copies have said so far.
#[derive(Default)]
struct Said {
    best: Option<(Node, Told)>,
    failure: Option<Failure>,
    heard: [Option<Node>; HEARD_MAX],
}

impl Said {
    fn hear(&mut self, node: Node, told: Result<Told, Failure>) {
        self.heard.rotate_right(1);
        if let Some(place) = self.heard.first_mut() {
            *place = Some(node);
        }
        match told {
            Ok(told) => self.best = Some((node, told)),
            Err(failure) => self.failure = self.failure.or(Some(failure)),
        }
    }

    fn is_found(&self) -> bool {
        self.best.as_ref().is_some_and(|(_, told)| told.reply.status != Status::Miss)
    }

    fn verdict(self) -> Result<(Node, Told), Failure> {
        self.best.ok_or(self.failure.unwrap_or(Failure::NoServer))
    }
}

/// Sends the same to all copies at once. The main one's answer counts.
async fn write<N: Nodes>(nodes: &N, copies: Copies, request: &Request<'_>) -> Result<Told, Failure> {
    let main = nodes.ask(MAIN, request, None);
    let others = join_all(copies.others().map(async |node| match nodes.ask(node, request, None).await {
        // It would not store it: then it must not have what was there before.
        Ok(told) if !matches!(told.reply.status, Status::Done | Status::NotFound) => {
            forget_at(nodes, node, request).await
        }
        Ok(_) | Err(Failure::Down | Failure::NoServer) => Ok(()),
        Err(failure) => Err(failure),
    }));
    let (told, others) = futures_util::join!(main, others);
    let told = told?;
    others.into_iter().collect::<Result<(), _>>()?;
    Ok(told)
}

/// Asks the main copy, and makes the others forget what it has changed.
async fn change<N: Nodes>(nodes: &N, copies: Copies, request: &Request<'_>) -> Result<Told, Failure> {
    let told = nodes.ask(MAIN, request, None).await?;
    let is_read = match request.op {
        Op::Get(get) => get.touch.is_none() && get.vivify.is_none() && get.recache.is_none(),
        Op::Store(_) | Op::Delete(_) | Op::Arith(_) | Op::Debug => false,
    };
    let is_changed = match told.reply.status {
        Status::NotFound | Status::NotStored | Status::Exists => false,
        Status::Done
        | Status::Value
        | Status::TooLarge
        | Status::Miss
        | Status::Noop
        | Status::Debug
        | Status::End
        | Status::Stat
        | Status::Error
        | Status::Classic => !is_read,
    };
    if is_changed {
        forget(nodes, copies, request).await?;
    }
    Ok(told)
}

/// Deletes the key of `request` from all copies but the main one.
///
/// # Errors
///
/// Why that is not certain.
pub async fn forget<N: Nodes>(nodes: &N, copies: Copies, request: &Request<'_>) -> Result<(), Failure> {
    let all = join_all(copies.others().map(|node| forget_at(nodes, node, request))).await;
    all.into_iter().collect()
}

async fn forget_at<N: Nodes>(nodes: &N, node: Node, request: &Request<'_>) -> Result<(), Failure> {
    let delete = Request { op: Op::Delete(Delete::default()), ..*request };
    match nodes.ask(node, &delete, None).await {
        Ok(told) if matches!(told.reply.status, Status::Done | Status::NotFound) => Ok(()),
        Ok(_) => Err(Failure::Nonsense),
        Err(Failure::Down | Failure::NoServer) => Ok(()),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod tests;
