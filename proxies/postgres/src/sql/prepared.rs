//! PREPARE and DEALLOCATE.

use super::lexer::{Lexer, Token};
use super::reading::{Kinds, Prepared, Reader};

impl<'a> Reader<'a> {
    pub(super) fn prepare(&mut self) -> Option<Token<'a>> {
        let first = Lexer::new(self.lexer.rest()).next();
        if let Some(Token::Word(word)) = first
            && word.eq_ignore_ascii_case(b"transaction")
        {
            return self.lexer.next();
        }
        match self.name() {
            Some(name) => self.reading.prepared.push(Prepared::Made(name)),
            None => self.reading.leaves |= Kinds::PREPARED,
        }
        self.lexer.next()
    }

    pub(super) fn deallocate(&mut self) -> Option<Token<'a>> {
        let mut rest = Lexer::new(self.lexer.rest());
        let first = rest.next();
        if let Some(Token::Word(word)) = first
            && word.eq_ignore_ascii_case(b"prepare")
            && matches!(rest.next(), Some(Token::Word(_) | Token::Quoted(_)))
        {
            self.lexer.next();
        }
        let is_all = self
            .lexer
            .rest()
            .trim_ascii_start()
            .get(..3)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"all"));
        match self.name() {
            Some(name) if is_all && &*name == "all" => self.reading.releases |= Kinds::PREPARED,
            Some(name) => {
                self.reading.releases |= Kinds::PREPARED;
                self.reading.prepared.push(Prepared::Dropped(name));
            }
            None => self.reading.releases |= Kinds::PREPARED,
        }
        self.lexer.next()
    }
}
