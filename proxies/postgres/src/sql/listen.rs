//! UNLISTEN: what a session no longer wants to hear. What it wants to hear the server is asked.

use super::lexer::{Lexer, Token};
use super::reading::{Kinds, NAME_BYTES, Reader};

/// Channels that a text leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlisten {
    /// `UNLISTEN *`
    All,
    /// `UNLISTEN name`, in the server's bytes; empty where it cannot be told.
    One(Box<[u8]>),
}

impl<'a> Reader<'a> {
    pub(super) fn unlisten(&mut self) -> Option<Token<'a>> {
        self.reading.releases |= Kinds::LISTENS;
        let next = self.lexer.next();
        let mut after = Lexer::new(self.lexer.rest());
        let unlisten = match next {
            Some(Token::Other(b'*')) => Unlisten::All,
            // U&"…": escapes that nobody here undoes.
            Some(Token::Word(b"U" | b"u")) if after.next() == Some(Token::Other(b'&')) => {
                Unlisten::One([].into())
            }
            Some(Token::Word(word)) => Unlisten::One(cut(word.to_ascii_lowercase())),
            Some(Token::Quoted(name)) => Unlisten::One(cut(undouble(name))),
            Some(Token::Text(_) | Token::Other(_)) | None => return next,
        };
        self.reading.unlistens.push(unlisten);
        self.lexer.next()
    }
}

fn undouble(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(*byte);
        if *byte == b'"' {
            bytes.next();
        }
    }
    plain
}

/// As PostgreSQL does: to so many bytes, by whole characters.
fn cut(mut name: Vec<u8>) -> Box<[u8]> {
    if name.len() > NAME_BYTES {
        let is_inside = |at: usize| name.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
        let end = (0..=NAME_BYTES).rev().find(|at| !is_inside(*at)).unwrap_or(NAME_BYTES);
        name.truncate(end);
    }
    name.into()
}
