//! Requests as bytes for a server.

use bytes::BytesMut;

use super::{Arith, Delete, Get, Mode, Op, Request, Store, Wants, base64};
use crate::wire::number;
use crate::wire::output::Output;

impl Request<'_> {
    /// Appends the request to `out`.
    pub fn encode(&self, out: &mut Output) {
        let tail = out.tail();
        if let (Op::Get(get), false) = (&self.op, self.is_coded)
            && *get == (Get { wants: Wants::ITEM, ..Get::default() })
        {
            // What nearly all are.
            tail.reserve(b"mg  k f v\r\n".len() + self.key.len());
            tail.extend_from_slice(b"mg ");
            tail.extend_from_slice(self.key);
            return tail.extend_from_slice(b" k f v\r\n");
        }
        tail.extend_from_slice(match self.op {
            Op::Get(_) => b"mg ",
            Op::Store(_) => b"ms ",
            Op::Delete(_) => b"md ",
            Op::Arith(_) => b"ma ",
            Op::Debug => b"me ",
        });
        if self.is_coded {
            base64::encode(self.key, tail);
        } else {
            tail.extend_from_slice(self.key);
        }
        match self.op {
            // Its length comes before the flags.
            Op::Store(store) => return encode_store(&store, self.is_coded, out),
            // A server may know the item by a key that it does not take for a coded one (a counter that it made
            // itself), and would put the raw bytes into its line, where they could end it.
            Op::Get(mut get) if self.is_coded => {
                get.wants = get.wants.without(Wants::KEY);
                encode_get(&get, tail);
            }
            Op::Get(get) => encode_get(&get, tail),
            Op::Delete(delete) => encode_delete(&delete, tail),
            Op::Arith(arith) => encode_arith(&arith, tail),
            Op::Debug => (),
        }
        tail.extend_from_slice(if self.is_coded { b" b\r\n" } else { b"\r\n" });
    }
}

fn encode_get(get: &Get, tail: &mut BytesMut) {
    get.wants.write(tail);
    if get.recache_first {
        write_time(b" R", get.recache, tail);
    }
    write_time(b" T", get.touch, tail);
    write_time(b" N", get.vivify, tail);
    if !get.recache_first {
        write_time(b" R", get.recache, tail);
    }
    write_number(b" E", get.new_cas, tail);
    write_number(b" C", get.compare, tail);
    if get.is_peek {
        tail.extend_from_slice(b" u");
    }
    write_new_ttl(get.wants, tail);
}

fn encode_delete(delete: &Delete, tail: &mut BytesMut) {
    delete.wants.write(tail);
    write_number(b" C", delete.compare, tail);
    write_number(b" E", delete.new_cas, tail);
    if delete.invalidate {
        tail.extend_from_slice(b" I");
    }
    write_time(b" T", delete.touch, tail);
    if delete.clear {
        tail.extend_from_slice(b" x");
    }
}

fn encode_arith(arith: &Arith, tail: &mut BytesMut) {
    arith.wants.write(tail);
    if arith.decrement {
        tail.extend_from_slice(b" MD");
    }
    tail.extend_from_slice(b" D");
    number::write(arith.delta, tail);
    write_time(b" N", arith.vivify, tail);
    write_number(b" J", arith.initial, tail);
    write_time(b" T", arith.touch, tail);
    write_number(b" C", arith.compare, tail);
    write_number(b" E", arith.new_cas, tail);
    write_new_ttl(arith.wants, tail);
}

fn encode_store(store: &Store<'_>, is_coded: bool, out: &mut Output) {
    let tail = out.tail();
    tail.extend_from_slice(b" ");
    number::write(store.value.len() as u64, tail);
    if is_coded {
        tail.extend_from_slice(b" b");
    }
    if store.flags != 0 {
        tail.extend_from_slice(b" F");
        number::write(u64::from(store.flags), tail);
    }
    if store.exptime != 0 {
        write_time(b" T", Some(store.exptime), tail);
    }
    tail.extend_from_slice(match store.mode {
        Mode::Set => b"",
        Mode::Add => b" ME",
        Mode::Replace => b" MR",
        Mode::Append => b" MA",
        Mode::Prepend => b" MP",
    });
    write_number(b" C", store.compare, tail);
    write_number(b" E", store.new_cas, tail);
    if store.invalidate {
        tail.extend_from_slice(b" I");
    }
    write_time(b" N", store.vivify, tail);
    store.wants.write(tail);
    tail.extend_from_slice(b"\r\n");
    out.push(store.value);
    out.extend_from_slice(b"\r\n");
}

/// Behind the flags that change what it tells.
fn write_new_ttl(wants: Wants, tail: &mut BytesMut) {
    if wants.has(Wants::NEW_TTL) {
        tail.extend_from_slice(b" t");
    }
}

fn write_number(flag: &[u8], value: Option<u64>, out: &mut BytesMut) {
    if let Some(value) = value {
        out.extend_from_slice(flag);
        number::write(value, out);
    }
}

fn write_time(flag: &[u8], value: Option<i32>, out: &mut BytesMut) {
    let Some(value) = value else { return };
    out.extend_from_slice(flag);
    if value < 0 {
        out.extend_from_slice(b"-");
    }
    number::write(u64::from(value.unsigned_abs()), out);
}
