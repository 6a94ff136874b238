//! Ways in which the resize could be wrong, to prove that the tests would notice.
//!
//! Each is the true program seen through servers that are asked something else than it asked. Only in tests and
//! in builds with the feature `mutants`, where the environment variable `GROOVE_MUTANT` names one; the names
//! are those of [`Mutant::name`].

use std::cell::{Cell, RefCell};

use bytes::Bytes;

use super::resize::{At, Phase, Token};
use super::{Event, Link, Node, Nodes, Told};
use crate::error::Failure;
use crate::wire::meta::{Delete, Get, Mode, Op, Reply, Request, Status, Store};

/// One way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mutant {
    /// A read copies with a plain `add`, without stub and bump: old data come back after a delete.
    AddFill,
    /// The same with a plain `set`: they come back even over newer ones.
    SetFill,
    /// A set stores without comparing: two sidecars in neighbouring phases leave two values.
    PlainSet,
    /// A set makes its stub only after it has killed the other copy.
    LateStub,
    /// A set whose version is gone counts as done.
    LostIsDone,
    /// The other copy is killed after the write.
    KillAfterWrite,
    /// The other copy is not killed at all.
    NoKill,
    /// A delete begins with new.
    DeleteNewFirst,
    /// A copy does not bump what it copies.
    NoBump,
    /// An append does not compare.
    PlainAppend,
    /// A client's token is taken for the other server's.
    OtherToken,
    /// CAS values are used on whatever connection there is.
    AnyConnection,
    /// From E at once to new alone.
    SkipF,
    /// A stub is shown as the empty value it is.
    ShowStubs,
    /// `flush_all` goes to all servers at once, and once.
    FlushOnce,
}

impl Mutant {
    /// All of them.
    pub(super) const ALL: [Self; 15] = [
        Self::AddFill,
        Self::SetFill,
        Self::PlainSet,
        Self::LateStub,
        Self::LostIsDone,
        Self::KillAfterWrite,
        Self::NoKill,
        Self::DeleteNewFirst,
        Self::NoBump,
        Self::PlainAppend,
        Self::OtherToken,
        Self::AnyConnection,
        Self::SkipF,
        Self::ShowStubs,
        Self::FlushOnce,
    ];

    /// Its name in `GROOVE_MUTANT`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddFill => "add-fill",
            Self::SetFill => "set-fill",
            Self::PlainSet => "plain-set",
            Self::LateStub => "late-stub",
            Self::LostIsDone => "lost-is-done",
            Self::KillAfterWrite => "kill-after-write",
            Self::NoKill => "no-kill",
            Self::DeleteNewFirst => "delete-new-first",
            Self::NoBump => "no-bump",
            Self::PlainAppend => "plain-append",
            Self::OtherToken => "other-token",
            Self::AnyConnection => "any-connection",
            Self::SkipF => "skip-f",
            Self::ShowStubs => "show-stubs",
            Self::FlushOnce => "flush-once",
        }
    }

    /// The one that is on.
    #[cfg(not(test))]
    pub(super) fn current() -> Option<Self> {
        let name = std::env::var("GROOVE_MUTANT").ok()?;
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }

    /// The one that is on in this test.
    #[cfg(test)]
    pub(super) fn current() -> Option<Self> {
        tests_own::CURRENT.get()
    }
}

#[cfg(test)]
pub(super) mod tests_own {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        pub(in crate::program) static CURRENT: Cell<Option<Mutant>> = const { Cell::new(None) };
    }
}

/// Servers that are asked something else.
pub(super) struct Mutated<'a, N> {
    nodes: &'a N,
    phase: Phase,
    kind: Kind,
    mutant: Option<Mutant>,
    /// A kill that is still to be done.
    owed: Cell<Option<Node>>,
    /// A claim that is still to be made.
    unclaimed: RefCell<Option<Get>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Set,
    Append,
    Delete,
    Other,
}

impl<'a, N> Mutated<'a, N> {
    pub(super) fn new(nodes: &'a N, phase: Phase, request: &Request<'_>) -> Self {
        let kind = match request.op {
            Op::Get(Get { touch: None, .. }) => Kind::Get,
            Op::Store(Store { mode: Mode::Set, .. }) => Kind::Set,
            Op::Store(Store { mode: Mode::Append | Mode::Prepend, .. }) => Kind::Append,
            Op::Delete(_) => Kind::Delete,
            Op::Get(_) | Op::Store(_) | Op::Arith(_) | Op::Debug => Kind::Other,
        };
        let mutant = Mutant::current();
        Self { nodes, phase, kind, mutant, owed: Cell::new(None), unclaimed: RefCell::new(None) }
    }

    pub(super) fn at(&self, at: At) -> At {
        match (self.mutant, at.phase) {
            (Some(Mutant::SkipF), Phase::F) => At { phase: Phase::G, ..at },
            (_, _) => at,
        }
    }

    pub(super) fn token(&self, token: Option<Token>) -> Option<Token> {
        match (self.mutant, token) {
            (Some(Mutant::OtherToken), Some(Token::Old(pin))) => Some(Token::New(pin)),
            (Some(Mutant::OtherToken), Some(Token::New(pin))) => Some(Token::Old(pin)),
            (_, token) => token,
        }
    }

    /// In the phases where two homes meet.
    fn is_between(&self) -> bool {
        matches!(self.phase, Phase::C | Phase::E)
    }
}

/// A CAS value that stands for none.
const NO_CAS: u64 = 0;

impl<N: Nodes> Nodes for Mutated<'_, N> {
    fn note(&self, event: Event) {
        self.nodes.note(event);
    }

    async fn ask(&self, node: Node, request: &Request<'_>, pinned: Option<Link>) -> Result<Told, Failure> {
        #[cfg(feature = "mutants")]
        super::lag::question().await;
        let Some(mutant) = self.mutant else { return self.nodes.ask(node, request, pinned).await };
        let as_op = |op| Request { op, ..*request };
        match (mutant, request.op) {
            (Mutant::AddFill | Mutant::SetFill, op) if self.kind == Kind::Get && self.phase == Phase::E => {
                self.fill(mutant, node, request, op, pinned).await
            }
            (Mutant::PlainSet, Op::Store(store)) if self.kind == Kind::Set && self.is_between() => {
                let store = Store { compare: None, ..store };
                self.nodes.ask(node, &as_op(Op::Store(store)), None).await
            }
            (Mutant::LateStub, op) if self.kind == Kind::Set && self.is_between() => {
                self.late_stub(node, request, op, pinned).await
            }
            (Mutant::LostIsDone, Op::Store(_)) if self.kind == Kind::Set && self.is_between() => {
                let told = self.nodes.ask(node, request, pinned).await?;
                let is_lost = matches!(told.reply.status, Status::Exists | Status::NotFound);
                Ok(if is_lost { invented(b"HD c0", told.link) } else { told })
            }
            (Mutant::KillAfterWrite, Op::Delete(Delete { compare: None, .. }))
                if self.kind != Kind::Delete =>
            {
                self.owed.set(Some(node));
                Ok(invented(b"HD", Link(0)))
            }
            (Mutant::KillAfterWrite, _) => {
                let told = self.nodes.ask(node, request, pinned).await?;
                if let (Status::Done | Status::Value, Some(owed)) = (told.reply.status, self.owed.take()) {
                    self.nodes.ask(owed, &as_op(Op::Delete(Delete::default())), None).await?;
                }
                Ok(told)
            }
            (Mutant::NoKill, Op::Delete(Delete { compare: None, .. })) if self.kind != Kind::Delete => {
                Ok(invented(b"NF", Link(0)))
            }
            (Mutant::DeleteNewFirst, Op::Delete(Delete { compare: None, .. }))
                if self.kind == Kind::Delete && self.is_between() =>
            {
                let node = if node == Node::Old { Node::New } else { Node::Old };
                self.nodes.ask(node, request, pinned).await
            }
            (Mutant::NoBump, Op::Store(store)) if is_bump(&store) => Ok(unbumped(&store, pinned)),
            (Mutant::PlainAppend, Op::Store(store)) if self.kind == Kind::Append && !is_bump(&store) => {
                let store = Store { compare: None, ..store };
                self.nodes.ask(node, &as_op(Op::Store(store)), None).await
            }
            (Mutant::AnyConnection | Mutant::OtherToken, _) => self.nodes.ask(node, request, None).await,
            (Mutant::ShowStubs, Op::Get(_)) if self.kind == Kind::Get => {
                let mut told = self.nodes.ask(node, request, pinned).await?;
                let line = String::from_utf8_lossy(told.reply.line()).replace(" W", "").replace(" Z", "");
                told.reply = Reply::new(told.reply.status, line.into_bytes().into(), told.reply.value);
                Ok(told)
            }
            (_, _) => self.nodes.ask(node, request, pinned).await,
        }
    }
}

impl<N: Nodes> Mutated<'_, N> {
    /// Copies as everybody would at first: what was missed is read from old and stored, that is all.
    async fn fill(
        &self,
        mutant: Mutant,
        node: Node,
        request: &Request<'_>,
        op: Op<'_>,
        pinned: Option<Link>,
    ) -> Result<Told, Failure> {
        match op {
            Op::Get(get @ Get { vivify: Some(_), .. }) => {
                let get = Get { vivify: None, ..get };
                let told = self.nodes.ask(node, &Request { op: Op::Get(get), ..*request }, None).await?;
                Ok(if told.reply.status == Status::Miss { invented(b"HD c0 s0 W", told.link) } else { told })
            }
            Op::Store(store) if is_bump(&store) => Ok(unbumped(&store, pinned)),
            Op::Store(store) => {
                let mode = if mutant == Mutant::AddFill { Mode::Add } else { Mode::Set };
                let store = Store { mode, compare: None, ..store };
                self.nodes.ask(node, &Request { op: Op::Store(store), ..*request }, None).await
            }
            Op::Delete(Delete { compare: Some(NO_CAS), .. }) => Ok(invented(b"HD", Link(0))),
            Op::Get(_) | Op::Delete(_) | Op::Arith(_) | Op::Debug => {
                self.nodes.ask(node, request, pinned).await
            }
        }
    }

    async fn late_stub(
        &self,
        node: Node,
        request: &Request<'_>,
        op: Op<'_>,
        pinned: Option<Link>,
    ) -> Result<Told, Failure> {
        match op {
            Op::Get(get) => {
                *self.unclaimed.borrow_mut() = Some(get);
                Ok(invented(b"HD c0 s0 Z", Link(0)))
            }
            Op::Store(store) => {
                let get = self.unclaimed.borrow_mut().take().ok_or(Failure::Nonsense)?;
                let claimed = self.nodes.ask(node, &Request { op: Op::Get(get), ..*request }, None).await?;
                let cas = super::steps::pin_of(&claimed)?.cas;
                let op = Op::Store(Store { compare: Some(cas), ..store });
                self.nodes.ask(node, &Request { op, ..*request }, Some(claimed.link)).await
            }
            Op::Delete(_) | Op::Arith(_) | Op::Debug => self.nodes.ask(node, request, pinned).await,
        }
    }
}

/// Appends nothing.
fn is_bump(store: &Store<'_>) -> bool {
    store.mode == Mode::Append && store.value.is_empty() && store.compare.is_some()
}

/// As if it had been bumped, to the version it has.
fn unbumped(store: &Store<'_>, pinned: Option<Link>) -> Told {
    let line = format!("HD c{}", store.compare.unwrap_or(NO_CAS));
    invented(line.as_bytes(), pinned.unwrap_or(Link(0)))
}

/// A reply that no server sent.
fn invented(line: &[u8], link: Link) -> Told {
    let status = if line.starts_with(b"NF") { Status::NotFound } else { Status::Done };
    Told { reply: Reply::new(status, Bytes::copy_from_slice(line), Bytes::new()), link }
}
