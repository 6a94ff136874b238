//! SQL as tokens, by the rules of PostgreSQL's scanner (chapter "Lexical Structure"). It never fails: what is not
//! closed ends with the text, and the server says what is wrong with it.

/// A token, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or a name, as written.
    Word(&'a [u8]),
    /// A name in double quotes; quotes within are still doubled.
    Quoted(&'a [u8]),
    /// A string, in quotes or dollars; escapes and doubled quotes are still as written.
    Text(&'a [u8]),
    /// Any other character; a digit stands for a number or a parameter.
    Other(u8),
}

/// Walks a text token by token.
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    /// Backslashes escape in every string, as with `standard_conforming_strings` off.
    escapes: bool,
    /// What was read last ends with the text, and not with its quote.
    unclosed: bool,
}

impl<'a> Lexer<'a> {
    /// Starts at the front of `text`.
    pub(super) fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer { rest: text, escapes: false, unclosed: false }
    }

    /// The same, where backslashes escape in every string.
    pub(super) fn with_escapes(text: &'a [u8], escapes: bool) -> Lexer<'a> {
        Lexer { escapes, ..Lexer::new(text) }
    }

    /// Whether something has ended with the text, and not with its quote.
    pub(super) fn is_unclosed(&self) -> bool {
        self.unclosed
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, class: u8) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is(*byte, class));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// Steps over spaces and comments, to where the next token begins.
    pub(super) fn skip_space(&mut self) {
        loop {
            match self.rest {
                [first, ..] if is(*first, SPACE) => _ = self.take_while(SPACE),
                [b'-', b'-', ..] => {
                    let end = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
                    self.take(end);
                }
                [b'/', b'*', ..] => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            if self.rest.starts_with(b"/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with(b"*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else if self.rest.is_empty() {
                return;
            } else {
                self.take(1);
                let next = memchr::memchr2(b'/', b'*', self.rest).unwrap_or(self.rest.len());
                self.take(next);
            }
        }
    }

    /// What is between quotes; a doubled quote ends nothing, nor does an escaped one where there are escapes.
    fn quoted(&mut self, quote: u8, escapes: bool) -> &'a [u8] {
        self.take(1);
        let all = self.rest;
        let mut end = 0;
        while let Some(rest) = all.get(end..) {
            let Some(at) = memchr::memchr2(quote, b'\\', rest) else { break };
            end += at;
            let here = all.get(end).copied();
            let is_doubled = all.get(end + 1).copied() == Some(quote);
            if here == Some(b'\\') {
                end += if escapes { 2 } else { 1 };
            } else if is_doubled {
                end += 2;
            } else {
                self.rest = all.get(end + 1..).unwrap_or_default();
                return all.get(..end).unwrap_or_default();
            }
        }
        self.rest = &[];
        self.unclosed = true;
        all
    }

    /// `$tag$ … $tag$`, or a parameter like `$1`, or a lone dollar.
    fn dollar(&mut self) -> Token<'a> {
        let tag_end = self.rest.get(1..).and_then(|rest| rest.iter().position(|byte| !is(*byte, NAME)));
        let tag = tag_end
            .and_then(|end| self.rest.get(..end + 2))
            .filter(|tag| tag.ends_with(b"$") && !tag.get(1).is_some_and(u8::is_ascii_digit));
        let Some(tag) = tag else {
            self.take(1);
            let digits = self.take_while(DIGIT);
            return Token::Other(if digits.is_empty() { b'$' } else { b'0' });
        };
        self.take(tag.len());
        let end = memchr::memmem::find(self.rest, tag);
        let text = self.take(end.unwrap_or(self.rest.len()));
        self.take(tag.len());
        Token::Text(text)
    }

    fn word(&mut self) -> Token<'a> {
        let word = self.take_while(NAME | DOLLAR);
        // E'…', B'…', X'…', N'…', U&'…' and U&"…".
        match (word, self.rest.first()) {
            ([b'e' | b'E'], Some(b'\'')) => Token::Text(self.quoted(b'\'', true)),
            ([b'b' | b'B' | b'x' | b'X'], Some(b'\'')) => Token::Text(self.quoted(b'\'', false)),
            ([b'n' | b'N'], Some(b'\'')) => Token::Text(self.quoted(b'\'', self.escapes)),
            _ => Token::Word(word),
        }
    }
}

/// May stand within a name.
const NAME: u8 = 1;
const DIGIT: u8 = 1 << 1;
const DOLLAR: u8 = 1 << 2;
const POINT: u8 = 1 << 3;
const SPACE: u8 = 1 << 4;

/// What each byte is. A table: most bytes of every text that comes by are asked about once.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    #[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "below 256")]
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'0'..=b'9' => NAME | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => NAME,
            b'$' => DOLLAR,
            b'.' => POINT,
            // The vertical tab is one since PostgreSQL 16.
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Whether a byte is any of these.
fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|own| own & class != 0)
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let first = *self.rest.first()?;
        Some(match first {
            b'\'' => Token::Text(self.quoted(b'\'', self.escapes)),
            b'"' => Token::Quoted(self.quoted(b'"', false)),
            b'$' => self.dollar(),
            b'0'..=b'9' => {
                self.take_while(NAME | POINT);
                Token::Other(b'0')
            }
            byte if is(byte, NAME) => self.word(),
            byte => {
                self.take(1);
                Token::Other(byte)
            }
        })
    }
}
