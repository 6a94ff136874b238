//! What the store keeps for a key, and the time it goes by.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Longer times are Unix times (protocol.txt, "Expiration times").
const RELATIVE_SECONDS_MAX: i32 = 60 * 60 * 24 * 30;

/// What an item costs besides its key and value, in bytes.
pub(super) const ITEM_OVERHEAD_LEN: usize = 192;

/// A value and all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Bytes,
    pub(super) flags: u32,
    pub(super) cas: u64,
    /// In milliseconds since the epoch; 0 for never.
    pub(super) expires_ms: u64,
    /// When it was stored or asked for again.
    pub(super) seen_ms: u64,
    /// It has been asked for since it was stored.
    pub(super) is_fetched: bool,
    /// Marked as outdated (`X`).
    pub(super) is_stale: bool,
    /// A client has been told that it is the one to renew it (`W`); others hear `Z`.
    pub(super) is_claimed: bool,
    /// The disk has this version.
    pub(super) on_disk: bool,
    /// It was claimed since it was written there.
    pub(super) is_newly_claimed: bool,
}

impl Item {
    /// A new version, with none of the old one's marks.
    pub(super) fn new(value: Bytes, flags: u32, cas: u64, expires_ms: u64, now_ms: u64) -> Self {
        Self {
            value,
            flags,
            cas,
            expires_ms,
            seen_ms: now_ms,
            is_fetched: false,
            is_stale: false,
            is_claimed: false,
            on_disk: false,
            is_newly_claimed: false,
        }
    }

    /// Is it still to be seen? Not what has expired, and nothing that was there before the last flush.
    pub(super) fn is_live(&self, now_ms: u64, flushed_cas: u64) -> bool {
        self.cas > flushed_cas && (self.expires_ms == 0 || self.expires_ms > now_ms)
    }

    /// Whole seconds left to live, as memcached counts them; none for ever.
    pub(super) fn ttl_s(&self, now_ms: u64) -> Option<u64> {
        (self.expires_ms != 0).then(|| self.expires_ms.saturating_sub(now_ms).div_ceil(1000))
    }

    /// What it takes in memory, with a key of this length.
    pub(super) fn held_len(&self, key_len: usize) -> u64 {
        (key_len + self.value.len() + ITEM_OVERHEAD_LEN) as u64
    }
}

/// Wall time that never jumps: read once, then counted on.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ms: millis(since_epoch) }
    }

    /// Milliseconds since the epoch.
    pub(super) fn now_ms(&self) -> u64 {
        self.started_ms + millis(self.started.elapsed())
    }
}

/// When an item with this exptime expires, in milliseconds since the epoch; 0 for never.
pub(super) fn deadline_ms(exptime: i32, now_ms: u64) -> u64 {
    let seconds = u64::from(exptime.unsigned_abs());
    match exptime {
        0 => 0,
        ..0 => 1,
        1..=RELATIVE_SECONDS_MAX => now_ms + seconds * 1000,
        _ => seconds * 1000,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
