//! The encoders, behind one face: bytes in, what there is of the coding out.

use super::{Levels, Place};
use crate::config::Coding;
use crate::metrics::CompressionMetrics;
use bytes::BytesMut;
use flate2::Compression as GzipLevel;
use flate2::write::GzEncoder;
use std::fmt;
use std::io::{self, Write};
use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::zstd_safe::CParameter;

/// How far back Brotli looks, as a power of two. Its memory grows with it.
const BR_WINDOW_LOG: u32 = 18;
/// How far back Zstandard looks; clients of HTTP need not look further than 23 (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 18;
/// What Brotli hands over at once.
const BR_BUFFER_BYTES: usize = 4096;
/// After so many bytes a session lets others have their turn.
const TURN_BYTES: usize = 64 * 1024;

/// One body's encoder.
pub enum Encoder {
    /// gzip.
    Gzip(GzEncoder<Vec<u8>>),
    /// Brotli.
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    /// Zstandard.
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    /// A new one; `None` if there is no memory for it.
    pub fn new(coding: Coding, levels: Levels) -> Option<Self> {
        Some(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), GzipLevel::new(levels.gzip))),
            Coding::Br => {
                let (size, level) = (BR_BUFFER_BYTES, levels.br);
                let made = brotli::CompressorWriter::new(Vec::new(), size, level, BR_WINDOW_LOG);
                Self::Br(Box::new(made))
            }
            Coding::Zstd => {
                let level = i32::try_from(levels.zstd).unwrap_or(3);
                let mut made = ZstdEncoder::new(Vec::new(), level).ok()?;
                made.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG)).ok()?;
                Self::Zstd(made)
            }
        })
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Br(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Br(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Br(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// The end of the coding. The encoder is of no use after it.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Br(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// A body on its way through an encoder.
pub struct Encoding {
    /// None once it has come to its end.
    encoder: Option<Encoder>,
    coding: Coding,
    _place: Place,
    metrics: CompressionMetrics,
    /// It comes as its server makes it: what there is goes on when nothing more comes for now.
    streams: bool,
    /// The encoder holds something back.
    is_dirty: bool,
    /// Since the session last let others have their turn.
    turn_bytes: usize,
    taken: u64,
    given: u64,
}

impl Encoding {
    /// Of a body; one that `streams` has no length that was told.
    pub fn new(
        encoder: Encoder,
        coding: Coding,
        place: Place,
        metrics: CompressionMetrics,
        streams: bool,
    ) -> Self {
        Self {
            encoder: Some(encoder),
            coding,
            _place: place,
            metrics,
            streams,
            is_dirty: false,
            turn_bytes: 0,
            taken: 0,
            given: 0,
        }
    }

    /// Takes data, and puts what comes of it into `output`, as a chunk.
    pub fn put(&mut self, data: &[u8], output: &mut BytesMut) -> io::Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        encoder.put(data)?;
        self.is_dirty = true;
        self.turn_bytes += data.len();
        self.taken += data.len() as u64;
        self.emit(output);
        Ok(())
    }

    /// Nothing more comes for now: what a reader can make use of goes on. Whether there was anything.
    pub fn pause(&mut self, output: &mut BytesMut) -> io::Result<bool> {
        if !self.streams || !std::mem::take(&mut self.is_dirty) {
            return Ok(false);
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.flush()?;
        }
        self.emit(output);
        Ok(true)
    }

    /// All has come.
    pub fn finish(&mut self, output: &mut BytesMut) -> io::Result<()> {
        if let Some(encoder) = self.encoder.take() {
            let rest = encoder.finish()?;
            self.given += rest.len() as u64;
            put_chunk(&rest, output);
            self.metrics.finished(self.coding);
        }
        Ok(())
    }

    /// Whether so much was done that it is others' turn. Asked once, it is not so any more.
    pub fn has_had_its_turn(&mut self) -> bool {
        let has = self.turn_bytes >= TURN_BYTES;
        if has {
            self.turn_bytes = 0;
        }
        has
    }

    fn emit(&mut self, output: &mut BytesMut) {
        let Some(encoder) = &mut self.encoder else { return };
        let out = encoder.out();
        self.given += out.len() as u64;
        put_chunk(out, output);
        out.clear();
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        self.metrics.passed(self.taken, self.given);
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoding").field("coding", &self.coding).finish_non_exhaustive()
    }
}

fn put_chunk(data: &[u8], output: &mut BytesMut) {
    if !data.is_empty() {
        output.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        output.extend_from_slice(data);
        output.extend_from_slice(b"\r\n");
    }
}
