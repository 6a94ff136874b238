//! SET, RESET and set_config: which settings they change, and whether for the session.

use super::lexer::{Lexer, Token};
use super::reading::{Keyword, Kinds, Reader};

impl<'a> Reader<'a> {
    /// `SET [SESSION | LOCAL] name …` and its special forms.
    pub(super) fn set(&mut self) -> Option<Token<'a>> {
        let mut first = self.lexer.next();
        if let Some(Token::Word(word)) = first {
            match Keyword::new(word).get() {
                b"local" | b"transaction" | b"constraints" => return self.lexer.next(),
                b"session" => first = self.lexer.next(),
                _ => {}
            }
        }
        if let Some(Token::Word(word)) = first {
            let known = match Keyword::new(word).get() {
                b"characteristics" => {
                    self.reading.leaves |= Kinds::SETTINGS;
                    return self.lexer.next();
                }
                b"authorization" => Some("session_authorization"),
                b"time" => Some("timezone"),
                b"names" => Some("client_encoding"),
                b"schema" => Some("search_path"),
                b"xml" => Some("xmloption"),
                b"seed" => return self.lexer.next(),
                _ => None,
            };
            if let Some(name) = known {
                let next = self.lexer.next();
                // `SET schema.name = …` is an extension's own setting, `SET schema = …` nobody's.
                if !matches!(next, Some(Token::Other(_))) {
                    self.sets(name);
                    // `SET TIME ZONE DEFAULT`, `SET NAMES DEFAULT`.
                    let value = if name == "timezone" { self.lexer.next() } else { next };
                    return self.value(name, value);
                }
                self.reading.leaves |= Kinds::SETTINGS;
                return next;
            }
        }
        let (name, next) = self.setting(first);
        let Some(name) = name else {
            self.reading.leaves |= Kinds::SETTINGS;
            return next;
        };
        self.sets(&name);
        // `=` or TO; ROLE has neither.
        let value = match next {
            Some(Token::Other(b'=')) => self.lexer.next(),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case(b"to") => self.lexer.next(),
            other => other,
        };
        self.value(&name, value)
    }

    /// DEFAULT in place of a value resets; LOCAL in place of a time zone, too.
    fn value(&mut self, name: &str, value: Option<Token<'a>>) -> Option<Token<'a>> {
        if let Some(Token::Word(word)) = value
            && (word.eq_ignore_ascii_case(b"default")
                || (name == "timezone" && word.eq_ignore_ascii_case(b"local")))
        {
            self.reading.resets.push(name.into());
        }
        value
    }

    pub(super) fn reset(&mut self) -> Option<Token<'a>> {
        let first = self.lexer.next();
        let keyword =
            if let Some(Token::Word(word)) = first { Keyword::new(word) } else { Keyword::new(b"") };
        let name: Box<str> = match keyword.get() {
            b"all" => {
                self.reading.resets_all = true;
                return self.lexer.next();
            }
            b"time" => "timezone".into(),
            b"session" => "session_authorization".into(),
            b"transaction" => return self.lexer.next(),
            _ => {
                let (name, next) = self.setting(first);
                if let Some(name) = name {
                    self.reading.resets.push(name.clone());
                    self.reading.settings.push(name);
                }
                return next;
            }
        };
        self.reading.resets.push(name.clone());
        self.reading.settings.push(name);
        self.lexer.next()
    }

    /// `set_config(name, value, is_local)`: what matters is the name, and that it is for the session.
    pub(super) fn set_config(&mut self) {
        let mut depth = 0usize;
        let mut argument = 0usize;
        let mut name = None;
        let mut is_literal = true;
        let mut is_local = false;
        for token in Lexer::new(self.lexer.rest()) {
            match token {
                Token::Other(b'(') => depth += 1,
                Token::Other(b')') if depth <= 1 => break,
                Token::Other(b')') => depth -= 1,
                Token::Other(b';') => break,
                // Without its arguments it is a name like any other.
                _ if depth == 0 => return,
                Token::Other(b',') if depth == 1 => argument += 1,
                Token::Text(text) if argument == 0 && name.is_none() => {
                    name = std::str::from_utf8(text).ok();
                }
                // A cast is as good as none.
                Token::Other(b':') | Token::Word(_) if argument == 0 && name.is_some() => {}
                _ if argument == 0 => is_literal = false,
                Token::Word(word) if argument == 2 => {
                    is_local = depth == 1 && word.eq_ignore_ascii_case(b"true");
                }
                Token::Text(text) if argument == 2 => {
                    is_local = depth == 1 && matches!(text, b"t" | b"true" | b"on" | b"1");
                }
                Token::Word(_) | Token::Quoted(_) | Token::Text(_) | Token::Other(_) => {}
            }
        }
        match name.filter(|_| is_literal) {
            _ if is_local => {}
            Some(name) => self.reading.settings.push(name.to_ascii_lowercase().into()),
            None => {
                self.reading.leaves |= Kinds::SETTINGS;
                self.reading.sets_by_parameter = true;
            }
        }
    }

    /// A setting's name, dots included, in lower case; and the token behind it.
    fn setting(&mut self, first: Option<Token<'a>>) -> (Option<Box<str>>, Option<Token<'a>>) {
        let mut name = String::new();
        let mut token = first;
        loop {
            match token {
                Some(Token::Word(part) | Token::Quoted(part)) => {
                    name.push_str(&String::from_utf8_lossy(part).to_ascii_lowercase());
                }
                other => return (None, other),
            }
            token = self.lexer.next();
            if token != Some(Token::Other(b'.')) {
                return (Some(name.into()), token);
            }
            name.push('.');
            token = self.lexer.next();
        }
    }

    fn sets(&mut self, name: &str) {
        self.reading.settings.push(name.into());
    }
}
