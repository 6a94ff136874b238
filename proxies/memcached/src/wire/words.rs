//! Lines taken apart: words and their places, as memcached's `tokenize_command` finds them.

use memchr::memchr;

/// The place of a word in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
}

impl Span {
    /// How many bytes.
    pub fn len(self) -> usize {
        self.end - self.start
    }

    /// No word.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A line in words: up to 23, of which a classic command needs 7 at the most.
#[derive(Debug)]
pub struct Words {
    spans: [Span; Self::KEPT],
    last: Span,
    /// How many there are, as far as memcached counts.
    pub count: usize,
}

impl Words {
    const KEPT: usize = 7;
    const COUNT_MAX: usize = 23;

    /// Takes a line apart.
    pub fn split(line: &[u8]) -> Self {
        let nothing = Span::default();
        let mut words = Self { spans: [nothing; Self::KEPT], last: nothing, count: 0 };
        while words.count < Self::COUNT_MAX {
            let Some(span) = next_token(line, words.last.end) else { break };
            if let Some(place) = words.spans.get_mut(words.count) {
                *place = span;
            }
            words.last = span;
            words.count += 1;
        }
        words
    }

    /// The place of one of the first seven; an empty one if there are not so many.
    pub fn span(&self, index: usize) -> Span {
        self.spans.get(index).copied().unwrap_or_default()
    }

    /// One of the first seven, or nothing.
    pub fn get<'a>(&self, line: &'a [u8], index: usize) -> &'a [u8] {
        bytes_of(line, self.span(index))
    }

    /// The last one.
    pub fn last<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        bytes_of(line, self.last)
    }
}

const SHORT_LEN: usize = 24;

/// The next run of bytes that are not spaces, from `at` on.
pub fn next_token(line: &[u8], at: usize) -> Option<Span> {
    let rest = line.get(at..)?;
    let start = at + rest.iter().position(|byte| *byte != b' ')?;
    let word = line.get(start..)?;
    // Most words are short, and looked through before a faster search is set up.
    let short = word.get(..SHORT_LEN).unwrap_or(word);
    let len = short.iter().position(|byte| *byte == b' ').unwrap_or_else(|| {
        let rest = word.get(short.len()..).unwrap_or_default();
        short.len() + memchr(b' ', rest).unwrap_or(rest.len())
    });
    Some(Span { start, end: start + len })
}

/// What stands there.
pub fn bytes_of(line: &[u8], span: Span) -> &[u8] {
    line.get(span.start..span.end).unwrap_or_default()
}
