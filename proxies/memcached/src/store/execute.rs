//! What a request does to an item, as memcached 1.6.18 does it: stubs, stale marks, tokens and all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::Rules;
use super::item::{Item, deadline_ms};
use super::shelf::Shelf;
use crate::wire::meta::{Arith, Delete, Get, Mode, Op, Reply, Request, Status, Store, Wants};
use crate::wire::number;
use crate::wire::output::BY_REFERENCE_LEN_MIN;

const INVALID: &str = "CLIENT_ERROR invalid flag";
const INVALID_OR_TWICE: &str = "CLIENT_ERROR invalid or duplicate flag";
const NOT_A_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";

/// One request at one moment, with everything it may touch.
pub(super) struct Turn<'a> {
    pub(super) shelf: &'a mut Shelf,
    pub(super) rules: &'a Rules,
    pub(super) now_ms: u64,
}

impl Turn<'_> {
    /// Does what a server would do.
    pub(super) fn run(&mut self, request: &Request<'_>) -> Reply {
        match request.op {
            Op::Get(get) => self.get(request, &get),
            Op::Store(store) => self.store(request, &store),
            Op::Delete(delete) => self.delete(request, &delete),
            Op::Arith(arith) => self.count(request, &arith),
            Op::Debug => self.debug(request),
        }
    }

    /// The item, if it can be seen; what cannot any more is dropped.
    fn live(&mut self, key: &[u8]) -> Option<&mut Item> {
        let (now_ms, flushed_cas) = (self.now_ms, self.rules.flushed_cas());
        if !self.shelf.peek(key)?.is_live(now_ms, flushed_cas) {
            self.shelf.remove(key);
            return None;
        }
        self.shelf.get_mut(key)
    }

    /// Keeps an item, unless it has expired before it began.
    fn put(&mut self, key: &[u8], item: Item) {
        let (now_ms, flushed_cas) = (self.now_ms, self.rules.flushed_cas());
        self.shelf.sweep(|item| item.is_live(now_ms, flushed_cas));
        if item.is_live(now_ms, flushed_cas) {
            self.shelf.put(key, item);
        } else {
            self.shelf.remove(key);
        }
    }

    fn get(&mut self, request: &Request<'_>, get: &Get) -> Reply {
        let Get { wants, touch, vivify, recache, recache_first, new_cas, is_peek, compare: _ } = *get;
        if new_cas.is_some() {
            return error(INVALID);
        }
        let (now_ms, counters) = (self.now_ms, &self.rules.counters);
        if touch.is_some() {
            counters.cmd_touch.inc();
        }
        let is_new = self.live(request.key).is_none();
        if is_new {
            if vivify.is_none() {
                let misses = if touch.is_some() { &counters.touch_misses } else { &counters.get_misses };
                misses.inc();
                return line(Status::Miss, request, wants);
            }
            // For ever until the reply's flags are told: memcached tells `t-1` here.
            self.shelf.put(request.key, Item::new(Bytes::new(), 0, self.rules.next_cas(), 0, now_ms));
        }
        let hits = if touch.is_some() { &counters.touch_hits } else { &counters.get_hits };
        hits.inc();
        let Some(item) = self.shelf.get_mut(request.key) else { return error(TOO_LARGE) };
        let value = item.value.clone();
        let mut text = head(wants, value.len());
        write_flags(&mut text, item, request, wants, TOLD, now_ms);
        let before_s = item.ttl_s(now_ms);
        if let Some(exptime) = touch {
            item.expires_ms = deadline_ms(exptime, now_ms);
        }
        let mut has_won = is_new;
        if is_new {
            item.expires_ms = deadline_ms(vivify.unwrap_or_default(), now_ms);
        } else if let Some(exptime) = recache {
            let at_ms = deadline_ms(exptime, now_ms);
            let left_s = if recache_first { before_s } else { item.ttl_s(now_ms) };
            let is_near =
                at_ms > now_ms && left_s.is_some_and(|left_s| left_s < (at_ms - now_ms).div_ceil(1000));
            has_won = is_near && !item.is_claimed;
        }
        if wants.has(Wants::NEW_TTL) {
            write_ttl(&mut text, item, now_ms);
        }
        if item.is_claimed {
            text.extend_from_slice(b" Z");
        }
        if item.is_stale {
            text.extend_from_slice(b" X");
            has_won = has_won || !item.is_claimed;
        }
        if has_won {
            text.extend_from_slice(b" W");
            item.is_claimed = true;
            item.is_newly_claimed = true;
        }
        if !is_peek {
            if item.is_fetched {
                item.seen_ms = now_ms;
            }
            item.is_fetched = true;
        }
        if wants.has(Wants::VALUE) {
            return Reply::new(Status::Value, text.freeze(), value);
        }
        Reply::new(Status::Done, text.freeze(), Bytes::new())
    }

    fn debug(&mut self, request: &Request<'_>) -> Reply {
        let now_ms = self.now_ms;
        match self.live(request.key) {
            Some(item) => Reply::new(Status::Debug, described(item, request, now_ms).freeze(), Bytes::new()),
            None => line(Status::Miss, request, Wants::NOTHING),
        }
    }

    fn store(&mut self, request: &Request<'_>, store: &Store<'_>) -> Reply {
        self.rules.counters.cmd_set.inc();
        let Store { mode, flags, exptime, value, compare, new_cas, invalidate, wants, .. } = *store;
        if new_cas.is_some() {
            return error(INVALID);
        }
        if value.len() > self.rules.value_len_max() {
            // An old value would be a stale one.
            self.shelf.remove(request.key);
            return error(TOO_LARGE);
        }
        let expires_ms = deadline_ms(exptime, self.now_ms);
        let old = self.live(request.key).cloned();
        let fresh = || Item::new(detached(value), flags, 0, expires_ms, 0);
        let made = match mode {
            Mode::Set | Mode::Replace if let Some(token) = compare => match old {
                None => Err(Status::NotFound),
                Some(old) if token != 0 && old.cas == token => Ok(fresh()),
                Some(old) if token != 0 && invalidate && token < old.cas => Ok(Item {
                    expires_ms: old.expires_ms,
                    is_stale: true,
                    is_claimed: old.is_claimed,
                    ..fresh()
                }),
                Some(_) => Err(Status::Exists),
            },
            Mode::Set => Ok(fresh()),
            Mode::Replace => old.map(|_| fresh()).ok_or(Status::NotStored),
            Mode::Add => old.map_or_else(|| Ok(fresh()), |_| Err(Status::NotStored)),
            Mode::Append => self.join(old, compare, |old| [old, value].concat()),
            Mode::Prepend => self.join(old, compare, |old| [value, old].concat()),
        };
        match made {
            Ok(item) => {
                let cas = self.rules.next_cas();
                self.put(request.key, Item { cas, seen_ms: self.now_ms, ..item });
                stored(Status::Done, request, wants, cas)
            }
            Err(status) => stored(status, request, wants, 0),
        }
    }

    fn join(
        &self,
        old: Option<Item>,
        compare: Option<u64>,
        joined: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Item, Status> {
        let old = old.ok_or(Status::NotStored)?;
        if compare.is_some_and(|token| token != 0 && token != old.cas) {
            return Err(Status::Exists);
        }
        let value = joined(&old.value);
        // memcached finds no room for the new item, and leaves the old one.
        if value.len() > self.rules.value_len_max() {
            return Err(Status::NotStored);
        }
        Ok(Item::new(value.into(), old.flags, 0, old.expires_ms, 0))
    }

    fn delete(&mut self, request: &Request<'_>, delete: &Delete) -> Reply {
        let Delete { compare, new_cas, invalidate, touch, clear, wants } = *delete;
        if new_cas.is_some() || clear {
            return error(INVALID_OR_TWICE);
        }
        let (now_ms, rules) = (self.now_ms, self.rules);
        let Some(item) = self.live(request.key) else {
            rules.counters.delete_misses.inc();
            return line(Status::NotFound, request, wants);
        };
        if compare.is_some_and(|token| token != item.cas) {
            rules.counters.delete_misses.inc();
            return line(Status::Exists, request, wants);
        }
        if invalidate {
            if let Some(exptime) = touch {
                item.expires_ms = deadline_ms(exptime, now_ms);
            }
            item.is_stale = true;
            item.is_claimed = false;
            item.cas = rules.next_cas();
        } else {
            self.shelf.remove(request.key);
            rules.counters.delete_hits.inc();
        }
        line(Status::Done, request, wants)
    }

    fn count(&mut self, request: &Request<'_>, arith: &Arith) -> Reply {
        let Arith { delta, decrement, vivify, initial, touch, compare, new_cas, wants } = *arith;
        if new_cas.is_some() {
            return error(INVALID_OR_TWICE);
        }
        let (now_ms, rules) = (self.now_ms, self.rules);
        let (hits, misses) = match decrement {
            false => (&rules.counters.incr_hits, &rules.counters.incr_misses),
            true => (&rules.counters.decr_hits, &rules.counters.decr_misses),
        };
        let old = self.live(request.key).cloned();
        let is_new = old.is_none();
        let (digits, mut item) = match (old, vivify) {
            (None, None) => {
                misses.inc();
                return line(Status::NotFound, request, wants);
            }
            (None, Some(exptime)) => {
                let digits = Bytes::from(initial.unwrap_or(0).to_string());
                let expires_ms = deadline_ms(exptime, now_ms);
                (digits.clone(), Item::new(digits, 0, 0, expires_ms, now_ms))
            }
            (Some(old), _) => {
                if old.value.is_empty() {
                    return error(NOT_A_NUMBER);
                }
                if compare.is_some_and(|token| token != 0 && token != old.cas) {
                    return line(Status::Exists, request, wants);
                }
                let Some(number) = number::unsigned(&old.value) else { return error(NOT_A_NUMBER) };
                let number =
                    if decrement { number.saturating_sub(delta) } else { number.wrapping_add(delta) };
                hits.inc();
                let digits = Bytes::from(number.to_string());
                (digits.clone(), counted(old, digits, now_ms))
            }
        };
        item.cas = rules.next_cas();
        let told_ms = if is_new { 0 } else { item.expires_ms };
        let mut text = head(wants, digits.len());
        write_flags(
            &mut text,
            &Item { expires_ms: told_ms, ..item.clone() },
            request,
            wants,
            COUNTED,
            now_ms,
        );
        if let Some(exptime) = touch {
            item.expires_ms = deadline_ms(exptime, now_ms);
        }
        if wants.has(Wants::NEW_TTL) {
            write_ttl(&mut text, &item, now_ms);
        }
        self.put(request.key, item);
        match wants.has(Wants::VALUE) {
            true => Reply::new(Status::Value, text.freeze(), digits),
            false => Reply::new(Status::Done, text.freeze(), Bytes::new()),
        }
    }
}

/// What `me` tells, which classes things by slab where we have none.
fn described(item: &Item, request: &Request<'_>, now_ms: u64) -> BytesMut {
    let mut text = BytesMut::from(&b"ME "[..]);
    if request.is_coded {
        text.extend_from_slice(STANDARD.encode(request.key).as_bytes());
    } else {
        text.extend_from_slice(request.key);
    }
    let life = match item.ttl_s(now_ms) {
        Some(left_s) => format!("-{left_s}"),
        None => "-1".to_owned(),
    };
    let rest = format!(
        " exp={life} la={} cas={} fetch={} cls=1 size={}",
        now_ms.saturating_sub(item.seen_ms) / 1000,
        item.cas,
        if item.is_fetched { "yes" } else { "no" },
        item.held_len(request.key.len()),
    );
    text.extend_from_slice(rest.as_bytes());
    text
}

/// What `mg` tells of an item.
const TOLD: Wants =
    Wants::ITEM.and(Wants::CAS).and(Wants::TTL).and(Wants::SIZE).and(Wants::HIT).and(Wants::LAST);

/// What `ma` tells of it.
const COUNTED: Wants = Wants::KEY.and(Wants::CAS).and(Wants::TTL);

/// The new version of a counter. memcached writes into the old value and fills up with spaces; only a longer
/// number gets a new item, without the old one's marks.
fn counted(old: Item, digits: Bytes, now_ms: u64) -> Item {
    if digits.len() > old.value.len() {
        return Item::new(digits, old.flags, 0, old.expires_ms, now_ms);
    }
    let mut value = BytesMut::from(&digits[..]);
    value.resize(old.value.len(), b' ');
    Item { value: value.freeze(), on_disk: false, ..old }
}

/// `VA <length>` or `HD`.
fn head(wants: Wants, value_len: usize) -> BytesMut {
    let mut text = BytesMut::with_capacity(64);
    match wants.has(Wants::VALUE) {
        true => {
            text.extend_from_slice(b"VA ");
            number::write(value_len as u64, &mut text);
        }
        false => text.extend_from_slice(b"HD"),
    }
    text
}

/// The flags that are wanted, in the order in which a request of ours asks for them.
fn write_flags(
    text: &mut BytesMut,
    item: &Item,
    request: &Request<'_>,
    wants: Wants,
    told: Wants,
    now_ms: u64,
) {
    let tells = |flag| wants.has(flag) && told.has(flag);
    if tells(Wants::KEY) {
        write_key(text, request);
    }
    if tells(Wants::FLAGS) {
        text.extend_from_slice(b" f");
        number::write(u64::from(item.flags), text);
    }
    if tells(Wants::CAS) {
        text.extend_from_slice(b" c");
        number::write(item.cas, text);
    }
    if tells(Wants::TTL) {
        write_ttl(text, item, now_ms);
    }
    if tells(Wants::SIZE) {
        text.extend_from_slice(b" s");
        number::write(item.value.len() as u64, text);
    }
    if tells(Wants::HIT) {
        text.extend_from_slice(if item.is_fetched { b" h1" } else { b" h0" });
    }
    if tells(Wants::LAST) {
        text.extend_from_slice(b" l");
        number::write(now_ms.saturating_sub(item.seen_ms) / 1000, text);
    }
}

fn write_ttl(text: &mut BytesMut, item: &Item, now_ms: u64) {
    text.extend_from_slice(b" t");
    match item.ttl_s(now_ms) {
        Some(left_s) => number::write(left_s, text),
        None => text.extend_from_slice(b"-1"),
    }
}

fn write_key(text: &mut BytesMut, request: &Request<'_>) {
    text.extend_from_slice(b" k");
    if request.is_coded {
        text.extend_from_slice(STANDARD.encode(request.key).as_bytes());
        text.extend_from_slice(b" b");
    } else {
        text.extend_from_slice(request.key);
    }
}

/// A reply without an item.
fn line(status: Status, request: &Request<'_>, wants: Wants) -> Reply {
    if !wants.has(Wants::KEY) {
        return Reply::new(status, Bytes::from_static(word(status)), Bytes::new());
    }
    let mut text = BytesMut::from(word(status));
    write_key(&mut text, request);
    Reply::new(status, text.freeze(), Bytes::new())
}

/// What `ms` answers.
fn stored(status: Status, request: &Request<'_>, wants: Wants, cas: u64) -> Reply {
    if !wants.has(Wants::CAS) {
        return line(status, request, wants);
    }
    let mut text = BytesMut::from(word(status));
    if wants.has(Wants::KEY) {
        write_key(&mut text, request);
    }
    text.extend_from_slice(b" c");
    number::write(cas, &mut text);
    Reply::new(status, text.freeze(), Bytes::new())
}

fn word(status: Status) -> &'static [u8] {
    match status {
        Status::Done => b"HD",
        Status::Miss => b"EN",
        Status::NotFound => b"NF",
        Status::NotStored => b"NS",
        Status::Exists => b"EX",
        // Nothing of this kind is without an item.
        Status::Value
        | Status::TooLarge
        | Status::Noop
        | Status::Debug
        | Status::End
        | Status::Stat
        | Status::Error
        | Status::Classic => b"ERROR",
    }
}

fn error(words: &'static str) -> Reply {
    Reply::new(Status::Error, Bytes::from_static(words.as_bytes()), Bytes::new())
}

/// A value that keeps no read buffer alive.
fn detached(value: &Bytes) -> Bytes {
    match value.len() >= BY_REFERENCE_LEN_MIN {
        true => value.clone(),
        false => Bytes::copy_from_slice(value),
    }
}
