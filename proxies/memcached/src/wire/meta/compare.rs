//! What binds a request to its item: the CAS value that it compares with, and the key that has to come back.

use xxhash_rust::xxh3::xxh3_64;

use super::{Op, Reply, Request, Wants, base64};

/// Enough of a hash to tell two keys apart.
fn fingerprint(key: &[u8]) -> u32 {
    let [_, _, _, _, low @ ..] = xxh3_64(key).to_be_bytes();
    u32::from_be_bytes(low)
}

impl<B: AsRef<[u8]>> Reply<B> {
    /// Is this the answer for the key with that fingerprint, as far as it tells?
    pub fn is_of(&self, key: u32) -> bool {
        let Some(told) = self.flag(b'k') else { return true };
        // An item that was stored by a coded key is told so, however it was asked for.
        fingerprint(told) == key || base64::decode(told).is_some_and(|told| fingerprint(&told) == key)
    }
}

impl Request<'_> {
    /// What the key of its answer has to look like, if the answer has one.
    pub fn fingerprint(&self) -> Option<u32> {
        match &self.op {
            Op::Get(get) if get.wants.has(Wants::KEY) && !self.is_coded => Some(fingerprint(self.key)),
            Op::Get(_) | Op::Store(_) | Op::Delete(_) | Op::Arith(_) | Op::Debug => None,
        }
    }

    /// The token it compares with, if it does.
    pub fn compare(&self) -> Option<u64> {
        match &self.op {
            Op::Get(get) => get.compare,
            Op::Debug => None,
            Op::Store(store) => store.compare,
            Op::Delete(delete) => delete.compare,
            Op::Arith(arith) => arith.compare,
        }
    }

    /// The same, comparing with `cas`.
    #[must_use]
    pub fn comparing(mut self, cas: u64) -> Self {
        match &mut self.op {
            Op::Get(get) => get.compare = Some(cas),
            Op::Debug => (),
            Op::Store(store) => store.compare = Some(cas),
            Op::Delete(delete) => delete.compare = Some(cas),
            Op::Arith(arith) => arith.compare = Some(cas),
        }
        self
    }
}
