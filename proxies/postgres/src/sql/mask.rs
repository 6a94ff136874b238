//! A text as others may see it: without a literal in it, and the same for all that differ in nothing else.
//!
//! As in the texts of pg_stat_statements, but by the scanner's rules alone: nothing is parsed. What cannot be told from a
//! literal counts as one.

use super::lexer::{Lexer, Token};

/// As much of a text as is shown, in bytes; its fingerprint is of all of it.
pub const TEXT_MAX: usize = 1 << 10;

/// A text without its literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The same for texts that are the same without their literals, on every machine.
    pub id: u64,
    /// What is shown.
    pub text: Box<str>,
}

impl Masked {
    /// Of what is known under a name of ours.
    pub fn named(name: &str) -> Masked {
        Masked { id: xxhash_rust::xxh3::xxh3_64(name.as_bytes()), text: name.into() }
    }

    /// The fingerprint as it is written.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.id)
    }
}

/// Masks a text. `escapes`: backslashes escape in every string (`standard_conforming_strings` is off).
pub fn mask(text: &[u8], escapes: bool) -> Masked {
    let mut writer = Writer::new(text);
    let mut lexer = Lexer::with_escapes(text, escapes);
    while let Some(token) = lexer.next() {
        let end = text.len() - lexer.rest().len();
        match token {
            // A quote that is never closed: who knows what is behind it.
            Token::Quoted(_) if lexer.is_unclosed() => writer.value(),
            Token::Quoted(name) => writer.quoted(name),
            Token::Text(_) => writer.value(),
            Token::Word(b"u" | b"U") if lexer.rest().starts_with(b"&'") => _ = lexer.next(),
            Token::Word(word) => writer.word(word),
            Token::Other(b'0') => {
                skip_exponent(text, end, &mut lexer);
                writer.value();
            }
            Token::Other(b'.') if starts_number(lexer.rest()) && !writer.prev.is_operand() => {}
            Token::Other(b'+' | b'-') if signs(lexer.rest(), &writer) => {}
            Token::Other(byte) => writer.other(byte, end),
        }
    }
    writer.finish()
}

/// `1.5e` is a number up to here; its exponent may have a sign.
fn skip_exponent(text: &[u8], end: usize, lexer: &mut Lexer<'_>) {
    let is_open = matches!(text.get(end.wrapping_sub(1)), Some(b'e' | b'E'));
    if let [b'+' | b'-', digits @ ..] = lexer.rest()
        && is_open
        && starts_number(digits)
    {
        lexer.next();
        lexer.next();
    }
}

fn starts_number(rest: &[u8]) -> bool {
    rest.first().is_some_and(u8::is_ascii_digit)
}

/// Whether a sign before `rest` belongs to a number.
fn signs(rest: &[u8], writer: &Writer<'_>) -> bool {
    let number = match rest.trim_ascii_start() {
        [b'.', digits @ ..] => digits,
        digits => digits,
    };
    starts_number(number) && !writer.prev.is_operand()
}

/// What was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prev {
    Start,
    /// A word that no value can be: an operand or a `(` behind it begins something new.
    Keyword,
    Name,
    Value,
    Open,
    Close,
    Comma,
    Dot,
    /// One or more characters, the last of which stands before this place of the text.
    Operator(usize),
}

impl Prev {
    /// What follows can only be an operator, or begin something new.
    fn is_operand(self) -> bool {
        matches!(self, Prev::Name | Prev::Value | Prev::Close)
    }
}

/// What of a parenthesis is told once, however often it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Nothing,
    /// `IN (…, …)`, `ARRAY[…, …]`: what stands between the commas.
    Elements,
    /// `VALUES (…), (…)`: what stands in parentheses.
    Rows,
}

/// A parenthesis, or the whole text.
#[derive(Debug)]
struct Level {
    repeats: Repeats,
    /// Where the element begins that is being written.
    element: usize,
    /// Where the first one is.
    first: Option<(usize, usize)>,
}

impl Level {
    fn new(repeats: Repeats, element: usize) -> Level {
        Level { repeats, element, first: None }
    }
}

/// What a statement begins with, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sets {
    /// Nothing was read of it yet.
    Unknown,
    Never,
    /// ALTER: it does once there is a SET.
    Perhaps,
    /// What follows a `=` or TO is a value, quoted or not.
    Now,
    /// That value.
    Value,
}

struct Writer<'t> {
    out: Vec<u8>,
    text: &'t [u8],
    prev: Prev,
    levels: Vec<Level>,
    sets: Sets,
    /// The last word was IN or ARRAY, or VALUES.
    opens: Repeats,
}

impl<'t> Writer<'t> {
    fn new(text: &'t [u8]) -> Writer<'t> {
        Writer {
            out: Vec::with_capacity(text.len()),
            text,
            prev: Prev::Start,
            levels: vec![Level::new(Repeats::Nothing, 0)],
            sets: Sets::Unknown,
            opens: Repeats::Nothing,
        }
    }

    fn value(&mut self) {
        self.end_rows();
        // Strings that follow each other are one.
        if self.sets != Sets::Value && self.prev != Prev::Value {
            self.put(b"?", Prev::Value);
        }
        self.begun();
    }

    fn begun(&mut self) {
        self.opens = Repeats::Nothing;
        if self.sets == Sets::Unknown {
            self.sets = Sets::Never;
        }
    }

    fn quoted(&mut self, name: &[u8]) {
        self.end_rows();
        if self.sets != Sets::Value {
            self.put(&[b"\"", name, b"\""].concat(), Prev::Name);
        }
        self.begun();
    }

    fn word(&mut self, word: &[u8]) {
        let word = word.to_ascii_lowercase();
        self.end_rows();
        if self.sets == Sets::Value {
            return;
        }
        if matches!(&*word, b"true" | b"false" | b"null") && self.takes_value() {
            return self.value();
        }
        let is_member = self.prev == Prev::Dot;
        let prev = if !is_member && is_keyword(&word) { Prev::Keyword } else { Prev::Name };
        self.put(&word, prev);
        self.opens = match &*word {
            b"in" | b"array" => Repeats::Elements,
            b"values" => Repeats::Rows,
            _ => Repeats::Nothing,
        };
        if self.opens == Repeats::Rows {
            let at = self.out.len();
            if let Some(level) = self.levels.last_mut() {
                *level = Level::new(Repeats::Rows, at);
            }
        }
        self.sets = match (self.sets, &*word) {
            (Sets::Unknown | Sets::Perhaps, b"set") => Sets::Now,
            (Sets::Unknown, b"alter") => Sets::Perhaps,
            (Sets::Unknown, _) => Sets::Never,
            (Sets::Now, b"to") => self.sets_value(),
            (sets, _) => sets,
        };
    }

    /// Whether TRUE, FALSE or NULL would be a value here: not in IS NULL, NOT NULL or SET NULL.
    fn takes_value(&self) -> bool {
        match self.prev {
            Prev::Open | Prev::Comma | Prev::Operator(_) => true,
            Prev::Keyword => ![&b"is"[..], b"not", b"set"].iter().any(|word| self.out.ends_with(word)),
            Prev::Start | Prev::Name | Prev::Value | Prev::Close | Prev::Dot => false,
        }
    }

    fn sets_value(&mut self) -> Sets {
        self.put(b"?", Prev::Value);
        Sets::Value
    }

    fn other(&mut self, byte: u8, end: usize) {
        if self.sets == Sets::Value && byte != b';' {
            return;
        }
        match byte {
            b'(' | b'[' => {
                self.put(&[byte], Prev::Open);
                let repeats = match self.opens {
                    Repeats::Elements => Repeats::Elements,
                    Repeats::Nothing | Repeats::Rows => Repeats::Nothing,
                };
                self.levels.push(Level::new(repeats, self.out.len()));
            }
            b')' | b']' => {
                self.end_element(Repeats::Elements);
                if self.levels.len() > 1 {
                    self.levels.pop();
                }
                self.put(&[byte], Prev::Close);
                self.end_element(Repeats::Rows);
            }
            b',' => {
                self.end_element(Repeats::Elements);
                self.put(b",", Prev::Comma);
                let at = self.out.len();
                if let Some(level) = self.levels.last_mut() {
                    level.element = at;
                }
            }
            b'.' => self.put(b".", Prev::Dot),
            b';' => {
                self.levels.truncate(1);
                self.end_rows();
                // Empty statements are none.
                if !matches!(self.prev, Prev::Start) && !self.out.ends_with(b";") {
                    self.put(b";", Prev::Start);
                }
                self.sets = Sets::Unknown;
            }
            byte => {
                self.end_rows();
                if self.prev == Prev::Operator(end - 1) {
                    self.out.push(shown(byte));
                    self.prev = Prev::Operator(end);
                } else {
                    self.put(&[shown(byte)], Prev::Operator(end));
                }
                if byte == b'=' && self.sets == Sets::Now {
                    self.sets = self.sets_value();
                }
            }
        }
        self.opens = Repeats::Nothing;
    }

    /// Rows end where something else begins.
    fn end_rows(&mut self) {
        if let Some(level) = self.levels.last_mut()
            && level.repeats == Repeats::Rows
        {
            level.repeats = Repeats::Nothing;
        }
    }

    /// What has just been written is not told again if it is what the first one was.
    fn end_element(&mut self, of: Repeats) {
        let end = self.out.len();
        let Some(level) = self.levels.last_mut().filter(|level| level.repeats == of) else { return };
        let Some((from, to)) = level.first else {
            level.first = Some((level.element, end));
            return;
        };
        let element = self.out.get(level.element..end).map(<[u8]>::trim_ascii);
        let first = self.out.get(from..to).map(<[u8]>::trim_ascii);
        if element == first && element.is_some_and(|element| element.contains(&b'?')) {
            self.out.truncate(to);
        }
    }

    fn put(&mut self, token: &[u8], prev: Prev) {
        if self.is_apart(token) {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(token);
        self.prev = prev;
    }

    fn is_apart(&self, token: &[u8]) -> bool {
        match (self.prev, token) {
            (Prev::Open | Prev::Dot, _) | (_, b"," | b")" | b"]" | b"." | b";" | b"[") => false,
            (Prev::Name, b"(") | (Prev::Start, _) => !self.out.is_empty() && self.prev == Prev::Start,
            _ => true,
        }
    }

    fn finish(self) -> Masked {
        debug_assert!(self.out.len() <= 2 * self.text.len() + 1, "bounded by what was read");
        let all = String::from_utf8_lossy(self.out.strip_suffix(b";").unwrap_or(&self.out)).into_owned();
        let id = xxhash_rust::xxh3::xxh3_64(all.as_bytes());
        // Nothing here is a command for a terminal.
        let mut text: String = all.chars().map(|char| if char.is_control() { '?' } else { char }).collect();
        if text.len() > TEXT_MAX {
            let end = (0..=TEXT_MAX - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            text.push('…');
        }
        Masked { id, text: text.into() }
    }
}

fn shown(byte: u8) -> u8 {
    if byte.is_ascii_control() { b'?' } else { byte }
}

/// Words after which a parenthesis or a sign begins something new. Nothing depends on it but how a text looks, and whether
/// a sign is its number's.
fn is_keyword(word: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 43] = [
        b"all",
        b"and",
        b"any",
        b"array",
        b"as",
        b"between",
        b"by",
        b"case",
        b"default",
        b"distinct",
        b"else",
        b"except",
        b"exists",
        b"fetch",
        b"from",
        b"having",
        b"ilike",
        b"in",
        b"intersect",
        b"into",
        b"is",
        b"join",
        b"lateral",
        b"like",
        b"limit",
        b"not",
        b"offset",
        b"on",
        b"or",
        b"over",
        b"return",
        b"returning",
        b"select",
        b"set",
        b"similar",
        b"then",
        b"to",
        b"union",
        b"using",
        b"values",
        b"when",
        b"where",
        b"with",
    ];
    KEYWORDS.binary_search(&word).is_ok()
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
