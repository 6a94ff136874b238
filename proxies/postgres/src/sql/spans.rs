//! Tokens with their places, for whoever edits a text without changing the rest of it.

use std::ops::Range;

use super::lexer::{Lexer, Token};

/// What a token is, as far as an edit has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in quotes.
    Quoted,
    /// A string.
    Text,
    /// Anything else, by its first character; a digit stands for a number or a parameter.
    Other(u8),
}

/// A token and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it is.
    pub part: Part,
    /// Its bytes, quotes included.
    pub at: Range<usize>,
}

impl Span {
    /// As it is written.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.at.clone()).unwrap_or_default()
    }

    /// Whether it is this keyword.
    pub fn is_word(&self, text: &str, word: &str) -> bool {
        self.part == Part::Word && self.of(text).eq_ignore_ascii_case(word)
    }

    /// Whether it is this character.
    pub fn is(&self, character: u8) -> bool {
        self.part == Part::Other(character)
    }

    /// The name that it is: in lower case, unless it is quoted.
    pub fn name(&self, text: &str) -> Option<String> {
        let written = self.of(text);
        match self.part {
            Part::Word => Some(written.to_ascii_lowercase()),
            Part::Quoted => {
                written.strip_prefix('"')?.strip_suffix('"').map(|name| name.replace("\"\"", "\""))
            }
            Part::Text | Part::Other(_) => None,
        }
    }
}

/// All tokens of a text; `None` where one is not closed.
pub fn spans(text: &str) -> Option<Vec<Span>> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut spans = Vec::new();
    loop {
        lexer.skip_space();
        let start = text.len() - lexer.rest().len();
        let Some(token) = lexer.next() else { break };
        let end = text.len() - lexer.rest().len();
        let part = match token {
            Token::Word(_) => Part::Word,
            Token::Quoted(_) => Part::Quoted,
            Token::Text(_) => Part::Text,
            Token::Other(byte) => Part::Other(byte),
        };
        spans.push(Span { part, at: start..end });
    }
    (!lexer.is_unclosed()).then_some(spans)
}
