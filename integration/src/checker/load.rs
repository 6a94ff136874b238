//! Many clients that do everything one can do with a key, and write down what came of it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::client::{Ask, Client, Protocol, Told};
use super::history::{Did, History, Link, Record, Version};
use super::value::Shape;

/// What the clients do.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// The sidecars.
    pub(super) sidecars: Vec<SocketAddr>,
    /// Clients; each has one request in flight. Every second one goes through another sidecar each time.
    pub(super) clients: u16,
    /// Keys, of the four shapes in turn.
    pub(super) keys: u32,
    /// Operations that are to be expected of all of them, for which memory is set aside.
    pub(super) operations: u64,
    /// How they speak: in turn.
    pub(super) protocols: Vec<Protocol>,
    /// For the dice.
    pub(super) seed: u64,
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Operations begun so far.
    pub(super) begun: AtomicU64,
    /// Operations whose outcome nobody knows.
    pub(super) unknown: AtomicU64,
    /// Ends the clients.
    pub(super) stop: AtomicBool,
    ids: AtomicU32,
    epoch: Instant,
}

impl Shared {
    /// Nothing has begun.
    #[must_use]
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ids: AtomicU32::new(1),
            epoch: Instant::now(),
        })
    }

    /// Since the beginning.
    #[must_use]
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Options {
    /// Runs all clients until they are told to stop.
    ///
    /// # Errors
    /// When an answer is none that memcached gives.
    pub(super) fn run(&self, shared: &Arc<Shared>) -> Result<History> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        let book = Rc::new(RefCell::new(Book::default()));
        // Reserved, not touched: growing would need it twice.
        book.borrow_mut().records.reserve(usize::try_from(self.operations)?);
        let clients: Vec<_> = (0..self.clients)
            .map(|number| Worker::new(number, self.clone(), Arc::clone(shared), Rc::clone(&book)))
            .map(|worker| local.spawn_local(worker.work()))
            .collect();
        runtime.block_on(local.run_until(async {
            for client in clients {
                client.await??;
            }
            anyhow::Ok(())
        }))?;
        let book = book.take();
        Ok(History { records: book.records, links: book.links.into_iter().collect() })
    }
}

/// What all clients write down. They live on one thread.
#[derive(Default)]
struct Book {
    records: Vec<Record>,
    /// A link is seen with each read; it is kept once.
    links: HashSet<Link>,
}

/// A content that a client has seen, with its token.
#[derive(Clone, Copy)]
struct Pocketed {
    key: u32,
    token: u64,
    version: Version,
}

/// How many of them a client remembers: old tokens are tried too.
const POCKET: usize = 8;

/// A text is written anew when it has become that long.
const WRITES_MAX: usize = 24;

struct Worker {
    number: u16,
    options: Options,
    shared: Arc<Shared>,
    connections: Vec<Option<Client>>,
    book: Rc<RefCell<Book>>,
    pocket: Vec<Pocketed>,
    /// The last content it saw was long.
    is_long: Option<u32>,
    dice: Dice,
}

impl Worker {
    fn new(number: u16, options: Options, shared: Arc<Shared>, book: Rc<RefCell<Book>>) -> Self {
        let connections = options.sidecars.iter().map(|_| None).collect();
        let dice = Dice((options.seed ^ (u64::from(number) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { number, options, shared, connections, book, pocket: Vec::new(), is_long: None, dice }
    }

    async fn work(mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.shared.begun.fetch_add(1, Ordering::Relaxed);
            self.operate().await?;
        }
        Ok(())
    }

    async fn operate(&mut self) -> Result<()> {
        let count = u64::try_from(self.options.sidecars.len())?;
        let wanders = self.number % 2 == 1;
        let sidecar = if wanders { self.dice.below(count) } else { u64::from(self.number / 2) % count };
        let sidecar = usize::try_from(sidecar)?;
        let (key, ask, seen) = self.draw();
        let id = match ask {
            Ask::Set(_)
            | Ask::Add(_)
            | Ask::Replace(_)
            | Ask::Append(_)
            | Ask::Prepend(_)
            | Ask::Swap(..) => self.shared.ids.fetch_add(1, Ordering::Relaxed),
            Ask::Get | Ask::GetAndTouch | Ask::Increment | Ask::Decrement | Ask::Delete | Ask::Touch => 0,
        };
        let ask = ask.with(&Shape::of(key).content(id));
        let begun = self.shared.now_ns();
        let Some(told) = self.ask(sidecar, &format!("key:{key}"), &ask).await? else { return Ok(()) };
        let ended = self.shared.now_ns();
        if told == Told::Unknown {
            self.shared.unknown.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((did, seen)) = self.judge(key, &ask, &told, seen)? {
            let mut record = Record::new(key, did, begun, ended);
            record.id = id;
            record.seen = seen;
            record.client = self.number;
            record.asked(sidecar, ask.verb());
            self.book.borrow_mut().records.push(record);
        }
        Ok(())
    }

    /// Asks through a sidecar, over a new connection if the last one broke. `None` was never sent.
    async fn ask(&mut self, sidecar: usize, key: &str, ask: &Ask) -> Result<Option<Told>> {
        let address = self.options.sidecars.get(sidecar).copied();
        let Some((place, address)) = self.connections.get_mut(sidecar).zip(address) else {
            return Ok(None);
        };
        if place.is_none() {
            let protocols = &self.options.protocols;
            let turn = usize::from(self.number / 2) % protocols.len().max(1);
            let protocol = protocols.get(turn).copied().unwrap_or(Protocol::Classic);
            match Client::connect(address, protocol).await {
                Ok(client) => *place = Some(client),
                Err(_) => {
                    // It is down; whoever restarts it needs the processor.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Ok(None);
                }
            }
        }
        let Some(client) = place else { return Ok(None) };
        match client.ask(key, ask).await {
            Ok(told) => Ok(Some(told)),
            Err(error) => {
                *place = None;
                // A connection that broke is part of the game; an answer that is none is not.
                let is_answer = error.to_string().starts_with("told ");
                if is_answer {
                    Err(error.context(format!("{key}: {ask:?}")))
                } else {
                    Ok(Some(Told::Unknown))
                }
            }
        }
    }

    /// The next key, what to ask of it, and the version a cas is for. Contents are filled in later.
    fn draw(&mut self) -> (u32, Ask, Version) {
        let none = Version::default();
        if !self.pocket.is_empty() && self.dice.below(100) < 12 {
            let length = u64::try_from(self.pocket.len()).unwrap_or(1);
            let index = usize::try_from(self.dice.below(length)).unwrap_or_default();
            let Pocketed { key, token, version } = self.pocket.swap_remove(index);
            return (key, Ask::Swap(String::new(), token), version);
        }
        if let Some(key) = self.is_long.take() {
            return (key, Ask::Set(String::new()), none);
        }
        let key = u32::try_from(self.dice.below(u64::from(self.options.keys.max(1)))).unwrap_or_default();
        let ask = match self.dice.below(100) {
            0..40 => Ask::Get,
            40..44 => Ask::GetAndTouch,
            44..60 => Ask::Set(String::new()),
            60..67 => Ask::Delete,
            67..73 => Ask::Add(String::new()),
            73..77 => Ask::Replace(String::new()),
            77..81 => Ask::Touch,
            _ => match Shape::of(key) {
                Shape::Append => Ask::Append(String::new()),
                Shape::Prepend => Ask::Prepend(String::new()),
                Shape::Up => Ask::Increment,
                Shape::Down => Ask::Decrement,
            },
        };
        (key, ask, none)
    }

    /// What an operation turned out to be, and what it saw.
    fn judge(
        &mut self,
        key: u32,
        ask: &Ask,
        told: &Told,
        swapped: Version,
    ) -> Result<Option<(Did, Version)>> {
        let none = Version::default();
        Ok(match (ask, told) {
            (Ask::Get | Ask::GetAndTouch, Told::Content(content, token)) => {
                Some((Did::Read, self.saw(key, content, *token)))
            }
            (_, Told::Nothing) => Some((Did::Missed, none)),
            (Ask::Set(_) | Ask::Add(_), Told::Done) => Some((Did::Wrote, none)),
            (Ask::Replace(_), Told::Done) => Some((Did::Replaced, none)),
            (Ask::Append(_) | Ask::Prepend(_), Told::Done) => Some((Did::Appended, none)),
            (Ask::Swap(..), Told::Done) => Some((Did::Swapped, swapped)),
            (Ask::Delete, Told::Done) => Some((Did::Deleted, none)),
            (Ask::Touch, Told::Done) | (Ask::Add(_), Told::Taken) => Some((Did::Found, none)),
            // A token that came before a move is refused whatever is there: that much may be promised, no more.
            (Ask::Swap(..), Told::Taken) => None,
            (Ask::Increment | Ask::Decrement, Told::Number(number)) => {
                // A number beyond any write's is one that nobody wrote.
                Some((Did::Counted, Shape::of(key).counted(*number).unwrap_or(none)))
            }
            (Ask::Set(_) | Ask::Add(_) | Ask::Replace(_), Told::Unknown) => Some((Did::MayHaveWritten, none)),
            (Ask::Append(_) | Ask::Prepend(_), Told::Unknown) => Some((Did::MayHaveAppended, none)),
            (Ask::Swap(..), Told::Unknown) => Some((Did::MayHaveSwapped, swapped)),
            (Ask::Increment | Ask::Decrement, Told::Unknown) => Some((Did::MayHaveCounted, none)),
            (Ask::Get | Ask::GetAndTouch | Ask::Delete | Ask::Touch, Told::Unknown) => None,
            (ask, told) => anyhow::bail!("told {told:?} for {ask:?} of key {key}"),
        })
    }

    /// Reads a content, notes its links, and pockets its token now and then.
    fn saw(&mut self, key: u32, content: &[u8], token: u64) -> Version {
        let Some((writes, step)) = Shape::of(key).read(content) else {
            // Version 0 is one that nobody wrote.
            return Version::default();
        };
        if writes.len() > 1 {
            let links = &mut self.book.borrow_mut().links;
            let pairs = writes.iter().zip(writes.iter().skip(1));
            links.extend(pairs.map(|(parent, child)| Link { key, child: *child, parent: *parent }));
        }
        if writes.len() > WRITES_MAX {
            self.is_long = Some(key);
        }
        let version = Version { write: writes.last().copied().unwrap_or_default(), step };
        if token != 0 && self.pocket.len() < POCKET && self.dice.below(3) == 0 {
            self.pocket.push(Pocketed { key, token, version });
        }
        version
    }
}

impl Ask {
    /// The same with a content.
    fn with(self, content: &str) -> Self {
        let content = content.to_owned();
        match self {
            Self::Set(_) => Self::Set(content),
            Self::Add(_) => Self::Add(content),
            Self::Replace(_) => Self::Replace(content),
            Self::Append(_) => Self::Append(content),
            Self::Prepend(_) => Self::Prepend(content),
            Self::Swap(_, token) => Self::Swap(content, token),
            Self::Get
            | Self::GetAndTouch
            | Self::Increment
            | Self::Decrement
            | Self::Delete
            | Self::Touch => self,
        }
    }
}

/// xorshift64.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}
