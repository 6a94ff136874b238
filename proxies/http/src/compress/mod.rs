//! Compression of replies: which, into what, and what becomes of their heads. Pure, but for the count of encoders.
//!
//! ```text
//!  Accept-Encoding ─► accept::choose ─► Choice ─┐
//!                                               ├─► Compression::treat ─► Vary alone, or an Encoding and edits
//!  reply's head ────► fits: type, length ... ───┘                             (session/state.rs feeds it)
//! ```

mod accept;
mod encoder;
#[cfg(test)]
mod tests;

pub use accept::Choice;
pub use encoder::{Encoder, Encoding};

use crate::config::{self, Coding};
use crate::metrics::CompressionMetrics;
use crate::upstream::Make;
use crate::wire::{Edits, Framing, ReplyHead, tokens};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// Encoders at work, of all apps: each holds up to two megabytes.
#[derive(Debug, Default)]
pub struct Encoders(AtomicUsize);

/// One of them.
#[derive(Debug)]
pub struct Place(Arc<Encoders>);

impl Encoders {
    fn enter(self: &Arc<Self>, count_max: usize) -> Option<Place> {
        let place = Place(Arc::clone(self));
        // Too many: the place goes, and the count with it.
        (self.0.fetch_add(1, Ordering::Relaxed) < count_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a route says.
pub struct Compression {
    codings: Box<[Coding]>,
    /// Media types in small letters; those of a whole kind end in `/`.
    types: Box<[Box<str>]>,
    length_min: u64,
    levels: Levels,
    encoders: Arc<Encoders>,
    metrics: LazyLock<CompressionMetrics, Make<CompressionMetrics>>,
}

/// How hard each coding tries.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    /// 1 to 9.
    pub gzip: u32,
    /// 0 to 6.
    pub br: u32,
    /// 1 to 9.
    pub zstd: u32,
}

impl std::fmt::Debug for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compression").field("codings", &self.codings).finish_non_exhaustive()
    }
}

/// What is to become of one request's reply.
#[derive(Debug, Clone, Copy)]
pub struct Compress<'a> {
    /// The route's word.
    pub rules: &'a Compression,
    /// The client's.
    pub choice: Choice,
    /// How many encoders there may be.
    pub encoders_max: usize,
}

/// What becomes of a reply.
#[derive(Debug)]
pub struct Treatment {
    /// Edits to its head, after all others.
    pub edits: Edits,
    /// What its body goes through, if it has one that is to be compressed.
    pub encoding: Option<Box<Encoding>>,
}

impl Compression {
    /// As configured; `None` where it is switched off.
    pub fn new(
        rules: &config::Compression,
        encoders: Arc<Encoders>,
        metrics: impl FnOnce() -> CompressionMetrics + Send + 'static,
    ) -> Option<Self> {
        let types = rules.types.iter().map(|text| text.trim_end_matches('*').to_ascii_lowercase().into());
        rules.enabled.then(|| Self {
            codings: rules.codings.clone().into(),
            types: types.collect(),
            length_min: rules.min_length.0,
            levels: Levels { gzip: rules.gzip, br: rules.br, zstd: rules.zstd },
            encoders,
            metrics: LazyLock::new(Box::new(metrics) as Make<_>),
        })
    }

    /// What a client can read, by the values of its Accept-Encoding.
    pub fn choice<'v>(&self, accepted: impl Iterator<Item = &'v [u8]>) -> Choice {
        accept::choose(accepted, &self.codings)
    }
}

impl Compress<'_> {
    /// What becomes of a reply with this head. `None`: nothing.
    pub fn treat(&self, head: &ReplyHead<'_>, to_head: bool, can_be_chunked: bool) -> Option<Treatment> {
        if head.status == 304 {
            // It speaks of what a 200 would have been: of that the client may have what was compressed.
            let edits = self.choice.coding.map(|_| vary(head, edits_of(head, None)))?;
            return Some(Treatment { edits, encoding: None });
        }
        if !self.fits(head, to_head) {
            return None;
        }
        let plain = |edits| Some(Treatment { edits, encoding: None });
        let Some(coding) = self.choice.coding.filter(|_| can_be_chunked) else {
            // What others get of it depends on what they can read.
            return plain(vary(head, Lines::default()));
        };
        let encoding = if head.framing == Framing::None {
            None
        } else {
            let Some(place) = self.rules.encoders.enter(self.encoders_max) else {
                self.rules.metrics.busy.inc();
                return plain(vary(head, Lines::default()));
            };
            let made = Encoder::new(coding, self.rules.levels);
            let Some(encoder) = made else { return plain(vary(head, Lines::default())) };
            let metrics = self.rules.metrics.clone();
            Some(Box::new(Encoding::new(
                encoder,
                coding,
                place,
                metrics,
                head.fields.content_length.is_none(),
            )))
        };
        Some(Treatment { edits: vary(head, edits_of(head, Some(coding))), encoding })
    }

    /// Whether a reply is one that is compressed, whoever asks for it.
    fn fits(&self, head: &ReplyHead<'_>, to_head: bool) -> bool {
        let is_bodied = head.framing != Framing::None || to_head;
        if !is_bodied || head.status < 200 || (204..=206).contains(&head.status) {
            return false;
        }
        let mut media_type = None;
        for field in head.fields.iter() {
            let (name, value) = (field.name.of(head.raw), field.value.of(head.raw));
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            match name.len() {
                // Two of them could be read in two ways.
                12 if is(b"content-type") && media_type.replace(value).is_some() => return false,
                16 if is(b"content-encoding") && !value.eq_ignore_ascii_case(b"identity") => return false,
                13 if is(b"content-range") => return false,
                13 if is(b"cache-control")
                    && tokens(value).any(|token| token.eq_ignore_ascii_case(b"no-transform")) =>
                {
                    return false;
                }
                // They are of the bytes as they came.
                11 if is(b"content-md5") || is(b"repr-digest") => return false,
                14 if is(b"content-digest") => return false,
                6 if is(b"digest") => return false,
                _ => {}
            }
        }
        let is_long = head
            .fields
            .content_length
            .is_none_or(|length| length >= self.rules.length_min || (self.choice.must && length > 0));
        is_long && media_type.is_some_and(|given| self.takes(given))
    }

    fn takes(&self, media_type: &[u8]) -> bool {
        let given = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        self.rules.types.iter().any(|known| {
            let known = known.as_bytes();
            let part = if known.ends_with(b"/") { given.get(..known.len()) } else { Some(given) };
            part.is_some_and(|part| part.eq_ignore_ascii_case(known))
        })
    }
}

/// Lines of a head that change.
#[derive(Default)]
struct Lines {
    removed: Vec<&'static str>,
    set: Vec<(&'static str, String)>,
}

/// What a head says of the bytes that are no longer those; of a reply without a body, what it says of the tag alone.
fn edits_of(head: &ReplyHead<'_>, coding: Option<Coding>) -> Lines {
    let mut lines = Lines::default();
    if let Some(coding) = coding {
        lines.removed = vec!["Content-Length", "Accept-Ranges", "Content-Encoding"];
        lines.set.push(("Content-Encoding", coding.name().to_owned()));
    }
    let tag = head.fields.iter().find(|field| field.name.of(head.raw).eq_ignore_ascii_case(b"etag"));
    let tag = tag.and_then(|field| std::str::from_utf8(field.value.of(head.raw)).ok());
    // The same content, other bytes (RFC 9110, 8.8.1).
    if let Some(strong) = tag.filter(|tag| tag.starts_with('"')) {
        lines.set.push(("ETag", format!("W/{strong}")));
    }
    lines
}

/// Adds that it depends on what the client can read.
fn vary(head: &ReplyHead<'_>, lines: Lines) -> Edits {
    let values = head.fields.iter().filter(|field| field.name.of(head.raw).eq_ignore_ascii_case(b"vary"));
    let mut named = values.flat_map(|field| tokens(field.value.of(head.raw)));
    let is_said = named.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"));
    let add = (!is_said).then(|| ("Vary", "Accept-Encoding".to_owned()));
    Edits::new(lines.removed, lines.set, add)
}

impl Coding {
    /// As Content-Encoding has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }
}
