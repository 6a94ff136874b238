//! A memcached 1.6.18 in memory, as far as programs ask it anything.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::wire::meta::{Arith, Delete, Get, Mode, Op, Reply, Request, Status, Store, Wants};
use crate::wire::number;

/// Longer times are Unix times.
const RELATIVE_S_MAX: i32 = 60 * 60 * 24 * 30;

/// A request that outlives the program that made it: it may be carried out when nobody waits for it any more.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    key: Vec<u8>,
    op: Written,
}

#[derive(Debug, Clone)]
enum Written {
    Get(Get),
    Store(Store<'static>, Bytes),
    Delete(Delete),
    Arith(Arith),
    Debug,
}

static NO_VALUE: Bytes = Bytes::new();

impl Letter {
    pub(super) fn new(request: &Request<'_>) -> Self {
        let op = match request.op {
            Op::Get(get) => Written::Get(get),
            Op::Delete(delete) => Written::Delete(delete),
            Op::Arith(arith) => Written::Arith(arith),
            Op::Debug => Written::Debug,
            Op::Store(store) => {
                let Store { mode, flags, exptime, value, compare, new_cas, invalidate, vivify, wants } =
                    store;
                let rest = Store {
                    mode,
                    flags,
                    exptime,
                    value: &NO_VALUE,
                    compare,
                    new_cas,
                    invalidate,
                    vivify,
                    wants,
                };
                Written::Store(rest, value.clone())
            }
        };
        Self { key: request.key.to_vec(), op }
    }

    /// The line that would be sent.
    pub(super) fn shown(&self) -> String {
        let mut output = crate::wire::Output::new();
        self.request().encode(&mut output);
        String::from_utf8_lossy(output.front()).trim_end().replace("\r\n", " ")
    }

    pub(super) fn request(&self) -> Request<'_> {
        let op = match &self.op {
            Written::Get(get) => Op::Get(*get),
            Written::Delete(delete) => Op::Delete(*delete),
            Written::Arith(arith) => Op::Arith(*arith),
            Written::Debug => Op::Debug,
            Written::Store(store, value) => Op::Store(Store { value, ..*store }),
        };
        Request { key: &self.key, is_coded: false, op }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) value: Bytes,
    flags: u32,
    cas: u64,
    /// The Unix time; none for never.
    expires_s: Option<u64>,
    /// A client has won the right to fill it in.
    is_sent: bool,
    is_stale: bool,
}

impl Item {
    pub(super) fn shown(&self) -> String {
        let mark = if self.is_sent { " sent" } else { "" };
        format!("{:?} c{} expires {:?}{mark}", self.value, self.cas, self.expires_s)
    }

    /// Left by an `N`, and nothing else since.
    pub(super) fn is_stub(&self) -> bool {
        self.is_sent && self.value.is_empty()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    items: BTreeMap<Vec<u8>, Item>,
    last_cas: u64,
    pub(super) now_s: u64,
    /// There is no memory for the next value.
    pub(super) is_full: bool,
}

impl Server {
    pub(super) fn new(now_s: u64) -> Self {
        Self { now_s, ..Self::default() }
    }

    /// Empty, and counting from the beginning.
    pub(super) fn restart(&mut self) {
        *self = Self { now_s: self.now_s, ..Self::default() };
    }

    pub(super) fn evict(&mut self, key: &[u8]) -> bool {
        self.items.remove(key).is_some()
    }

    pub(super) fn item(&mut self, key: &[u8]) -> Option<&Item> {
        let now_s = self.now_s;
        self.items.retain(|_, item| item.expires_s.is_none_or(|at_s| at_s > now_s));
        self.items.get(key)
    }

    /// What it has, by key, with the Unix time at which it expires.
    pub(super) fn lives(&mut self) -> Vec<(Vec<u8>, Option<u64>)> {
        _ = self.item(b"");
        self.items.iter().map(|(key, item)| (key.clone(), item.expires_s)).collect()
    }

    pub(super) fn execute(&mut self, request: &Request<'_>) -> Reply {
        _ = self.item(request.key);
        match request.op {
            Op::Get(get) => self.get(request.key, get),
            Op::Store(store) => self.store(request.key, store),
            Op::Delete(delete) => self.delete(request.key, delete),
            Op::Arith(arith) => self.count(request.key, arith),
            Op::Debug => match self.items.contains_key(request.key) {
                true => reply(Status::Debug, "ME k exp=-1".into(), Bytes::new()),
                false => reply(Status::Miss, "EN".into(), Bytes::new()),
            },
        }
    }

    fn next_cas(&mut self) -> u64 {
        self.last_cas += 1;
        self.last_cas
    }

    fn expires_s(&self, exptime: i32) -> Option<u64> {
        match exptime {
            0 => None,
            ..0 => Some(0),
            1..=RELATIVE_S_MAX => Some(self.now_s + exptime as u64),
            _ => Some(exptime as u64),
        }
    }

    fn get(&mut self, key: &[u8], get: Get) -> Reply {
        let mut won = false;
        if !self.items.contains_key(key) {
            let Some(exptime) = get.vivify else { return reply(Status::Miss, "EN".into(), Bytes::new()) };
            let (cas, expires_s) = (self.next_cas(), self.expires_s(exptime));
            let stub =
                Item { value: Bytes::new(), flags: 0, cas, expires_s, is_sent: false, is_stale: false };
            self.items.insert(key.to_vec(), stub);
            won = true;
        }
        let (now_s, touched) = (self.now_s, get.touch.map(|exptime| self.expires_s(exptime)));
        let Some(item) = self.items.get_mut(key) else { unreachable!() };
        // What a stub is given is told by a `t` behind the `N` only.
        let old_expires_s = if won { None } else { item.expires_s };
        if let Some(expires_s) = touched {
            item.expires_s = expires_s;
        }
        let has_value = get.wants.has(Wants::VALUE);
        let mut line = if has_value { format!("VA {}", item.value.len()) } else { "HD".into() };
        write_flags(&mut line, key, get.wants, item, old_expires_s, now_s);
        if item.is_sent {
            line += " Z";
        }
        if item.is_stale {
            line += " X";
            won |= !item.is_sent;
        }
        if won {
            line += " W";
            item.is_sent = true;
        }
        match has_value {
            true => reply(Status::Value, line, item.value.clone()),
            false => reply(Status::Done, line, Bytes::new()),
        }
    }

    fn store(&mut self, key: &[u8], store: Store<'_>) -> Reply {
        if std::mem::take(&mut self.is_full) {
            // What was there does not outlive what should have replaced it.
            self.items.remove(key);
            let words = "SERVER_ERROR out of memory storing object";
            return reply(Status::Error, words.into(), Bytes::new());
        }
        let old = self.items.get(key).cloned();
        let fits = |old: &Item| store.compare.is_none_or(|cas| cas == 0 || cas == old.cas);
        let new = |value, flags, expires_s| Item {
            value,
            flags,
            cas: 0,
            expires_s,
            is_sent: false,
            is_stale: false,
        };
        let fresh = new(store.value.clone(), store.flags, self.expires_s(store.exptime));
        let mut item = match (store.mode, old) {
            (Mode::Add, Some(_)) | (Mode::Replace, None) => return word("NS"),
            (Mode::Append | Mode::Prepend, None) => match store.vivify {
                Some(exptime) => new(store.value.clone(), store.flags, self.expires_s(exptime)),
                None => return word("NS"),
            },
            (Mode::Set, None) if store.compare.is_some_and(|cas| cas != 0) => return word("NF"),
            (Mode::Set | Mode::Append | Mode::Prepend, Some(old)) if !fits(&old) => return word("EX"),
            (Mode::Append, Some(old)) => {
                new([&old.value[..], store.value].concat().into(), old.flags, old.expires_s)
            }
            (Mode::Prepend, Some(old)) => {
                new([&store.value[..], &old.value].concat().into(), old.flags, old.expires_s)
            }
            (Mode::Set | Mode::Replace, Some(_)) | (Mode::Set | Mode::Add, None) => fresh,
        };
        item.cas = self.next_cas();
        let mut line = "HD".to_string();
        if store.wants.has(Wants::KEY) {
            line += &format!(" k{}", String::from_utf8_lossy(key));
        }
        if store.wants.has(Wants::CAS) {
            line += &format!(" c{}", item.cas);
        }
        self.items.insert(key.to_vec(), item);
        reply(Status::Done, line, Bytes::new())
    }

    fn delete(&mut self, key: &[u8], delete: Delete) -> Reply {
        let cas = if delete.invalidate { self.last_cas + 1 } else { 0 };
        let Some(item) = self.items.get_mut(key) else { return word("NF") };
        if delete.compare.is_some_and(|cas| cas != 0 && cas != item.cas) {
            return word("EX");
        }
        if delete.invalidate {
            (item.is_stale, item.is_sent, item.cas) = (true, false, cas);
            self.last_cas = cas;
        } else {
            self.items.remove(key);
        }
        word("HD")
    }

    fn count(&mut self, key: &[u8], arith: Arith) -> Reply {
        let bad = "CLIENT_ERROR cannot increment or decrement non-numeric value";
        let bad = || reply(Status::Error, bad.into(), Bytes::new());
        let Some(old) = self.items.get(key).cloned() else {
            let Some(exptime) = arith.vivify else { return word("NF") };
            let value: Bytes = arith.initial.unwrap_or(0).to_string().into();
            let (cas, expires_s) = (self.next_cas(), self.expires_s(arith.touch.unwrap_or(exptime)));
            let item = Item { value, flags: 0, cas, expires_s, is_sent: false, is_stale: false };
            self.items.insert(key.to_vec(), item.clone());
            let times = [None, expires_s].map(|at_s| ttl(at_s, self.now_s));
            return counted(&item.value, &item, arith.wants, times);
        };
        if old.value.is_empty() {
            return bad();
        }
        if arith.compare.is_some_and(|cas| cas != 0 && cas != old.cas) {
            return word("EX");
        }
        let Some(value) = (if old.value.len() > 20 { None } else { number::unsigned(&old.value) }) else {
            return bad();
        };
        let value = match arith.decrement {
            true => value.saturating_sub(arith.delta),
            false => value.wrapping_add(arith.delta),
        };
        let digits = Bytes::from(value.to_string());
        let mut padded = digits.to_vec();
        // Written in place if it fits, else a new item, which has nothing of the old one's past.
        let in_place = digits.len() <= old.value.len();
        padded.resize(digits.len().max(old.value.len()), b' ');
        let old_expires_s = old.expires_s;
        let mut item = Item { value: padded.into(), cas: self.next_cas(), ..old };
        if !in_place {
            (item.is_sent, item.is_stale) = (false, false);
        }
        let kept = item.clone();
        if let Some(exptime) = arith.touch {
            item.expires_s = self.expires_s(exptime);
        }
        // The item that was replaced is touched, and the new one is not, though it is told so.
        self.items.insert(key.to_vec(), if in_place { item.clone() } else { kept });
        counted(
            &digits,
            &item,
            arith.wants,
            [old_expires_s, item.expires_s].map(|at_s| ttl(at_s, self.now_s)),
        )
    }
}

fn counted(digits: &Bytes, item: &Item, wants: Wants, [before, now]: [String; 2]) -> Reply {
    let has_value = wants.has(Wants::VALUE);
    let mut line = if has_value { format!("VA {}", digits.len()) } else { "HD".into() };
    for (want, text) in [(Wants::CAS, format!(" c{}", item.cas)), (Wants::TTL, before), (Wants::NEW_TTL, now)]
    {
        if wants.has(want) {
            line += &text;
        }
    }
    match has_value {
        true => reply(Status::Value, line, digits.clone()),
        false => reply(Status::Done, line, Bytes::new()),
    }
}

fn write_flags(
    line: &mut String,
    key: &[u8],
    wants: Wants,
    item: &Item,
    old_expires_s: Option<u64>,
    now_s: u64,
) {
    let flags = [
        (Wants::KEY, format!(" k{}", String::from_utf8_lossy(key))),
        (Wants::FLAGS, format!(" f{}", item.flags)),
        (Wants::CAS, format!(" c{}", item.cas)),
        (Wants::TTL, ttl(old_expires_s, now_s)),
        (Wants::SIZE, format!(" s{}", item.value.len())),
        (Wants::HIT, " h0".into()),
        (Wants::LAST, " l0".into()),
        (Wants::NEW_TTL, ttl(item.expires_s, now_s)),
    ];
    for (want, text) in flags {
        if wants.has(want) {
            *line += &text;
        }
    }
}

fn ttl(expires_s: Option<u64>, now_s: u64) -> String {
    match expires_s {
        None => " t-1".into(),
        Some(at_s) => format!(" t{}", at_s.saturating_sub(now_s)),
    }
}

fn word(line: &str) -> Reply {
    let status = match line {
        "HD" => Status::Done,
        "NS" => Status::NotStored,
        "EX" => Status::Exists,
        _ => Status::NotFound,
    };
    reply(status, line.into(), Bytes::new())
}

fn reply(status: Status, line: String, value: Bytes) -> Reply {
    Reply::new(status, line.into(), value)
}
