//! Counts what a peer sends that carries nothing: whoever sends much of it is not here to be served.
//!
//! A frame costs its sender nine bytes, and some cost us an answer (PING, SETTINGS), a stream (HEADERS that are reset at
//! once: CVE-2023-44487) or a walk through a list (PRIORITY, WINDOW_UPDATE, empty DATA and CONTINUATION: CVE-2019-9511
//! to 9518, CVE-2024-27316). Pure: bytes as they come, and the time.

use std::time::Duration;

/// Frames of that kind that may come at once, and again each [`PERIOD`].
const FRAMES_MAX: u32 = 1_000;
const PERIOD: Duration = Duration::from_secs(10);
/// What carries something pays for so many that do not: acknowledgements and updates of windows go with data.
const CREDIT: u32 = 4;

/// Nobody has to say as much as one frame for so few bytes received.
const BYTES_PER_FRAME: usize = 1024;

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;

/// Follows the frames of one peer.
#[derive(Debug)]
pub(super) struct Meter {
    /// Of the preface, or of a frame's payload.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    idle_frames: u32,
    since: Duration,
}

impl Meter {
    /// Begins before a preface of so many bytes.
    pub(super) fn new(preface_bytes: usize) -> Self {
        Self {
            skip: preface_bytes,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            idle_frames: 0,
            since: Duration::ZERO,
        }
    }

    /// Takes in what has come by `now`. False once it is too much.
    pub(super) fn count(&mut self, mut bytes: &[u8], now: Duration) -> bool {
        if now.saturating_sub(self.since) >= PERIOD {
            self.since = now;
            self.idle_frames = 0;
        }
        loop {
            let skipped = self.skip.min(bytes.len());
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip -= skipped;
            let wanted = HEADER_BYTES - self.header_bytes;
            let Some(room) = self.header.get_mut(self.header_bytes..) else { return true };
            let here = bytes.get(..wanted.min(bytes.len())).unwrap_or_default();
            room.iter_mut().zip(here).for_each(|(to, from)| *to = *from);
            self.header_bytes += here.len();
            bytes = bytes.get(here.len()..).unwrap_or_default();
            if self.header_bytes < HEADER_BYTES {
                return self.idle_frames <= FRAMES_MAX;
            }
            self.frame();
        }
    }

    /// So many bytes have gone to the peer: they pay for the updates of windows and the measuring that come back.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.idle_frames =
            self.idle_frames.saturating_sub(u32::try_from(bytes / BYTES_PER_FRAME).unwrap_or(u32::MAX));
    }

    fn frame(&mut self) {
        self.header_bytes = 0;
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        let is_answer = matches!(kind, SETTINGS | PING) && flags & ACK != 0;
        let carries = matches!(kind, DATA | CONTINUATION) && self.skip > 0 || kind == HEADERS;
        if carries {
            self.idle_frames = self.idle_frames.saturating_sub(CREDIT);
        } else if !is_answer {
            // A stream that is opened and reset has paid with its opening for nothing.
            let weight = if kind == RST_STREAM { CREDIT + 1 } else { 1 };
            self.idle_frames = self.idle_frames.saturating_add(weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], &vec![0; usize::from(length)]].concat()
    }

    /// How many of `frames` in a row are let pass.
    fn passes(frames: &[u8]) -> u32 {
        let mut meter = Meter::new(0);
        (0..100_000).find(|_| !meter.count(frames, Duration::ZERO)).unwrap_or(u32::MAX)
    }

    #[test]
    fn what_carries_nothing_is_bounded() {
        let opened_and_reset = [frame(HEADERS, 5, 10), frame(RST_STREAM, 0, 4)].concat();
        for (name, frames) in [
            ("ping", frame(PING, 0, 8)),
            ("settings", frame(SETTINGS, 0, 6)),
            ("empty data", frame(DATA, 0, 0)),
            ("empty continuation", frame(CONTINUATION, 0, 0)),
            ("reset", opened_and_reset),
        ] {
            let passed = passes(&frames);
            assert!((FRAMES_MAX - CREDIT..=FRAMES_MAX).contains(&passed), "{passed} {name}");
        }
    }

    #[test]
    fn what_carries_something_is_not() {
        for (name, frames) in [
            ("data", frame(DATA, 0, 1)),
            ("requests", frame(HEADERS, 5, 10)),
            ("answers", [frame(PING, ACK, 8), frame(SETTINGS, ACK, 0)].concat()),
            (
                "windows beside data",
                [frame(DATA, 0, 1), frame(8, 0, 4), frame(8, 0, 4), frame(PING, 0, 8)].concat(),
            ),
        ] {
            assert_eq!(passes(&frames), u32::MAX, "{name}");
        }
        // Of a download, its reader sends nothing but windows.
        let mut meter = Meter::new(0);
        let windows = frame(8, 0, 4);
        for _ in 0..100_000 {
            assert!(meter.count(&windows, Duration::ZERO));
            meter.sent(16 << 10);
        }
    }

    #[test]
    fn frames_are_told_apart_however_they_trickle_in() {
        let bytes = [vec![b'P'; 24], frame(DATA, 0, 200), frame(PING, 0, 8), frame(PING, 0, 8)].concat();
        for size in [1, 2, 7, 9, 10, 33, 300] {
            let mut meter = Meter::new(24);
            for part in bytes.chunks(size) {
                assert!(meter.count(part, Duration::ZERO));
            }
            assert_eq!(meter.idle_frames, 2, "in parts of {size}");
            // Later it begins anew.
            assert!(meter.count(&[], PERIOD));
            assert_eq!(meter.idle_frames, 0);
        }
    }
}
