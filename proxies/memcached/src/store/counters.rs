//! What the store counts, in memcached's names.

use groove_common::telemetry::Counter;

/// The counters that `stats` tells.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) get_hits: Counter,
    pub(super) get_misses: Counter,
    pub(super) cmd_set: Counter,
    pub(super) cmd_touch: Counter,
    pub(super) cmd_flush: Counter,
    pub(super) touch_hits: Counter,
    pub(super) touch_misses: Counter,
    pub(super) delete_hits: Counter,
    pub(super) delete_misses: Counter,
    pub(super) incr_hits: Counter,
    pub(super) incr_misses: Counter,
    pub(super) decr_hits: Counter,
    pub(super) decr_misses: Counter,
    pub(super) evictions: Counter,
}

impl Counters {
    /// Counters for so many worker threads.
    pub(super) fn new(workers: usize) -> Self {
        let counter = || Counter::new(workers);
        Self {
            get_hits: counter(),
            get_misses: counter(),
            cmd_set: counter(),
            cmd_touch: counter(),
            cmd_flush: counter(),
            touch_hits: counter(),
            touch_misses: counter(),
            delete_hits: counter(),
            delete_misses: counter(),
            incr_hits: counter(),
            incr_misses: counter(),
            decr_hits: counter(),
            decr_misses: counter(),
            evictions: counter(),
        }
    }

    /// Their names and values.
    pub(super) fn table(&self) -> [(&'static str, u64); 15] {
        let (hits, misses) = (self.get_hits.get(), self.get_misses.get());
        [
            ("cmd_get", hits + misses),
            ("cmd_set", self.cmd_set.get()),
            ("cmd_flush", self.cmd_flush.get()),
            ("cmd_touch", self.cmd_touch.get()),
            ("get_hits", hits),
            ("get_misses", misses),
            ("touch_hits", self.touch_hits.get()),
            ("touch_misses", self.touch_misses.get()),
            ("delete_hits", self.delete_hits.get()),
            ("delete_misses", self.delete_misses.get()),
            ("incr_hits", self.incr_hits.get()),
            ("incr_misses", self.incr_misses.get()),
            ("decr_hits", self.decr_hits.get()),
            ("decr_misses", self.decr_misses.get()),
            ("evictions", self.evictions.get()),
        ]
    }
}
