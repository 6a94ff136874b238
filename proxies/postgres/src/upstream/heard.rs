//! Notifications that a session's own connection hears while queries of ours run on it.

use bytes::BytesMut;

use crate::wire::Frame;
use crate::wire::backend::notification;

/// What was heard, in order.
pub struct Heard<'a> {
    /// The channel of marks.
    marks: &'a str,
    frames: Vec<Frame>,
    awaited: Option<u64>,
    /// How much was heard before the mark.
    marked_at: Option<usize>,
}

impl<'a> Heard<'a> {
    /// Nothing yet.
    pub fn new(marks: &'a str) -> Heard<'a> {
        Heard { marks, frames: Vec::new(), awaited: None, marked_at: None }
    }

    /// Looks for a mark.
    pub fn await_mark(&mut self, mark: u64) {
        self.awaited = Some(mark);
    }

    /// Whether the mark was heard.
    pub fn is_marked(&self) -> bool {
        self.marked_at.is_some()
    }

    /// Adds a NotificationResponse. Marks, whosever they are, are nobody's to hear.
    pub(super) fn push(&mut self, frame: Frame) {
        match notification(frame.body()) {
            Ok((channel, payload)) if channel == self.marks.as_bytes() => {
                let awaited = self.awaited.map(|mark| mark.to_string());
                if awaited.is_some_and(|awaited| awaited.as_bytes() == payload) {
                    self.marked_at = Some(self.frames.len());
                }
            }
            Ok(_) | Err(_) => self.frames.push(frame),
        }
    }

    /// Forgets what came after the mark.
    pub fn cut(&mut self) {
        self.frames.truncate(self.marked_at.unwrap_or(self.frames.len()));
    }

    /// What was heard on these channels, as it goes over the wire.
    pub fn on(&self, is_wanted: impl Fn(&[u8]) -> bool) -> BytesMut {
        let mut out = BytesMut::new();
        for frame in &self.frames {
            if notification(frame.body()).map_or(true, |(channel, _)| is_wanted(channel)) {
                out.extend_from_slice(&frame.raw);
            }
        }
        out
    }
}
