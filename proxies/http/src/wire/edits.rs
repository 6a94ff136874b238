//! Header edits as the configuration asks for them, made ready to be applied to every head.

use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// A field's name and its value.
pub type Line = (Box<[u8]>, Box<[u8]>);

/// What to remove from a head and what to put at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names of fields that go, whatever their case.
    removed: Vec<Box<[u8]>>,
    /// Whole lines that come, CRLF included.
    lines: Bytes,
    /// The value that replaces Host, which also stands in lines.
    sets_host: bool,
    /// Fields that only authentication writes; what came of them goes.
    stripped: Option<Arc<Stripped>>,
}

/// Names of fields that say who a client was found to be: whatever a client says of them itself goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped(Vec<Box<[u8]>>);

/// All names that begin so are authentication's.
const STRIPPED_PREFIX: &[u8] = b"x-auth-";

impl Stripped {
    /// `X-Auth-*`, and these.
    pub fn new<N: AsRef<str>>(names: &[N]) -> Self {
        Self(names.iter().map(|name| name.as_ref().as_bytes().into()).collect())
    }

    /// Whether a field of that name goes. Case aside, and with `_` for `-`: CGI-like apps cannot tell the two apart.
    pub fn takes(&self, name: &[u8]) -> bool {
        let is = |known: &[u8], name: &[u8]| {
            known.len() == name.len() && known.iter().zip(name).all(|(a, b)| dashed(*a) == dashed(*b))
        };
        name.get(..STRIPPED_PREFIX.len()).is_some_and(|start| is(STRIPPED_PREFIX, start))
            || self.0.iter().any(|known| is(known, name))
    }
}

fn dashed(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

impl Edits {
    /// Removals first, then `set` (which replaces every field of that name), then `add`.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        remove: impl IntoIterator<Item = N>,
        set: impl IntoIterator<Item = (N, V)>,
        add: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut edits = Self::default();
        let mut lines = BytesMut::new();
        for name in remove {
            edits.remove(name.as_ref());
        }
        for (name, value) in set {
            let (name, value) = (name.as_ref(), value.as_ref());
            edits.remove(name);
            edits.sets_host |= name.eq_ignore_ascii_case("host");
            put_line(&mut lines, name.as_bytes(), value.as_bytes());
        }
        for (name, value) in add {
            let (name, value) = (name.as_ref(), value.as_ref());
            put_line(&mut lines, name.as_bytes(), value.as_bytes());
        }
        edits.lines = lines.freeze();
        edits
    }

    /// What was worked out for one message: names that go, whole lines that come.
    pub fn of_message(removed: Vec<Box<[u8]>>, lines: &[Line]) -> Self {
        let mut bytes = BytesMut::new();
        let mut sets_host = false;
        for (name, value) in lines {
            sets_host |= name.eq_ignore_ascii_case(b"host");
            put_line(&mut bytes, name, value);
        }
        Self { removed, lines: bytes.freeze(), sets_host, stripped: None }
    }

    /// The same, and fields that only authentication writes go too.
    pub fn stripping(mut self, stripped: Option<Arc<Stripped>>) -> Self {
        self.stripped = stripped;
        self
    }

    /// These edits, and then `later`, which wins where both speak of one field.
    pub fn then(&self, later: &Self) -> Self {
        let mut both = self.clone();
        let mut lines = BytesMut::new();
        for line in self.lines.split_inclusive(|byte| *byte == b'\n') {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if !later.removes(name) {
                lines.put_slice(line);
            }
        }
        lines.put_slice(&later.lines);
        both.removed.extend(later.removed.iter().cloned());
        both.sets_host |= later.sets_host;
        both.lines = lines.freeze();
        both
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.lines.is_empty() && self.stripped.is_none()
    }

    /// Whether there are names of fields that go.
    pub fn removes_something(&self) -> bool {
        !self.removed.is_empty() || self.stripped.is_some()
    }

    /// Whether a field of that name goes.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name))
            || self.stripped.as_ref().is_some_and(|stripped| stripped.takes(name))
    }

    /// Whether Host is replaced.
    pub fn sets_host(&self) -> bool {
        self.sets_host
    }

    /// The lines that come.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    fn remove(&mut self, name: &str) {
        self.removed.push(name.as_bytes().into());
    }
}

/// Appends one field line.
pub(super) fn put_line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
