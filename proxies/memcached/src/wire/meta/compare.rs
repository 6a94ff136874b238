//! The CAS value that a request compares with, whichever request it is.

use super::{Op, Request};

impl Request<'_> {
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
