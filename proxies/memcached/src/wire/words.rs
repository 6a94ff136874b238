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

/// The next run of bytes that are not spaces, from `at` on.
pub fn next_token(line: &[u8], at: usize) -> Option<Span> {
    let rest = line.get(at..)?;
    let start = match rest {
        // As it mostly is.
        [b' ', other, ..] if *other != b' ' => at + 1,
        _ => at + rest.iter().position(|byte| *byte != b' ')?,
    };
    let word = line.get(start..)?;
    Some(Span { start, end: start + word_len(word) })
}

/// Words that are not longer are looked through eight bytes at a time; a faster search costs more to set up.
const SHORT_LEN: usize = 32;

/// How many bytes come before the first space.
fn word_len(word: &[u8]) -> usize {
    let (mut at, mut rest) = (0, word);
    while at < SHORT_LEN
        && let Some((eight, behind)) = rest.split_first_chunk()
    {
        // What was a space is 0 in `other`, and the lowest such byte's highest bit is the lowest that is left of it.
        let other = u64::from_le_bytes(*eight) ^ u64::from_le_bytes([b' '; 8]);
        let spaces =
            other.wrapping_sub(u64::from_le_bytes([0x01; 8])) & !other & u64::from_le_bytes([0x80; 8]);
        if spaces != 0 {
            return at + spaces.trailing_zeros() as usize / 8;
        }
        (at, rest) = (at + 8, behind);
    }
    at + memchr(b' ', rest).unwrap_or(rest.len())
}

/// What stands there.
pub fn bytes_of(line: &[u8], span: Span) -> &[u8] {
    line.get(span.start..span.end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_what_stands_between_spaces(
            line in prop::collection::vec(prop_oneof![Just(b' '), Just(0xa0), Just(0x21), any::<u8>()], 0..100),
        ) {
            let mut at = 0;
            let mut words = Vec::new();
            while let Some(span) = next_token(&line, at) {
                words.push(bytes_of(&line, span));
                at = span.end;
            }
            let expected: Vec<_> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
            prop_assert_eq!(words, expected);
        }
    }
}
