//! Header edits as the configuration asks for them, made ready to be applied to every head.

use bytes::{BufMut, Bytes, BytesMut};

/// What to remove from a head and what to put at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names of fields that go, whatever their case.
    removed: Vec<Box<[u8]>>,
    /// Whole lines that come, CRLF included.
    lines: Bytes,
    /// The value that replaces Host, which also stands in lines.
    sets_host: bool,
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
        self.removed.is_empty() && self.lines.is_empty()
    }

    /// Whether there are names of fields that go.
    pub fn removes_something(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Whether a field of that name goes.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name))
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
