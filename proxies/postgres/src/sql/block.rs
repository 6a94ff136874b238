//! Texts that are one transaction command and nothing else.

use super::lexer::{Lexer, Token};
use super::reading::{Block, Reader};

impl<'a> Reader<'a> {
    /// BEGIN or START, if nothing follows but what may follow it.
    pub(super) fn begin(&mut self, start: bool) -> Option<Token<'a>> {
        let mut keyword = self.keyword();
        match keyword.get() {
            b"transaction" => keyword = self.keyword(),
            b"work" if !start => keyword = self.keyword(),
            _ if start => return self.lexer.next(),
            _ => {}
        }
        loop {
            let is_mode = match keyword.get() {
                b"isolation" => self.isolation_level(),
                b"read" => matches!(self.keyword().get(), b"only" | b"write"),
                b"deferrable" => true,
                b"not" => self.keyword().get() == b"deferrable",
                b"" => return self.closes(if start { Block::Start } else { Block::Begin }),
                _ => false,
            };
            if !is_mode {
                return self.lexer.next();
            }
            let mut ahead = Lexer::new(self.lexer.rest());
            if ahead.next() == Some(Token::Other(b',')) {
                if !matches!(ahead.next(), Some(Token::Word(_))) {
                    return self.lexer.next();
                }
                self.lexer.next();
            }
            keyword = self.keyword();
        }
    }

    fn isolation_level(&mut self) -> bool {
        if self.keyword().get() != b"level" {
            return false;
        }
        match self.keyword().get() {
            b"serializable" => true,
            b"repeatable" => self.keyword().get() == b"read",
            b"read" => matches!(self.keyword().get(), b"committed" | b"uncommitted"),
            _ => false,
        }
    }

    pub(super) fn end(&mut self, block: Block) -> Option<Token<'a>> {
        match self.keyword().get() {
            b"work" | b"transaction" | b"" => self.closes(block),
            // AND CHAIN, TO SAVEPOINT, PREPARED.
            _ => self.lexer.next(),
        }
    }

    /// The text is this command, if its statement ends here.
    fn closes(&mut self, block: Block) -> Option<Token<'a>> {
        let next = self.lexer.next();
        if matches!(next, None | Some(Token::Other(b';'))) {
            self.reading.block = Some(block);
        }
        next
    }
}
