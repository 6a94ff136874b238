//! What a text may do to a server session beyond its transaction.

use super::dull::is_dull;
use super::lexer::{Lexer, Token};
use super::listen::Unlisten;

bitflags::bitflags! {
    /// What a server session keeps beyond a transaction.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Kinds: u8 {
        /// Settings, by SET or set_config; and as whom the session acts.
        const SETTINGS = 1;
        /// Statements prepared by SQL.
        const PREPARED = 1 << 1;
        /// Cursors WITH HOLD.
        const CURSORS = 1 << 2;
        /// LISTEN.
        const LISTENS = 1 << 3;
        /// Session-level advisory locks.
        const LOCKS = 1 << 4;
        /// Temporary tables, and whatever else is in pg_temp.
        const TEMPORARY = 1 << 5;
        /// LOAD: nothing takes that back.
        const LIBRARIES = 1 << 6;
    }
}

impl Kinds {
    /// What a statement may leave whose text does not say what it does (DO, CALL).
    pub const ANYTHING: Kinds = Kinds::all().difference(Kinds::LIBRARIES);
}

/// What becomes of a statement that is prepared by SQL. Names are as the server knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// `PREPARE name`, and nothing else in the text.
    Made(Box<str>),
    /// `EXECUTE name`, wherever it stands.
    Used(Box<str>),
    /// `DEALLOCATE name`.
    Dropped(Box<str>),
}

impl Prepared {
    /// The statement's name.
    pub fn name(&self) -> &str {
        let (Prepared::Made(name) | Prepared::Used(name) | Prepared::Dropped(name)) = self;
        name
    }
}

/// A text that is one transaction command and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// BEGIN, with any modes.
    Begin,
    /// START TRANSACTION, with any modes.
    Start,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT.
    Rollback,
}

/// What a text may do to a server session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// What it may leave behind; settings only where it does not tell their names.
    pub leaves: Kinds,
    /// What it may take back of what was left before.
    pub releases: Kinds,
    /// Settings it sets or resets for the session, in lower case.
    pub settings: Vec<Box<str>>,
    /// Those of them that it resets.
    pub resets: Vec<Box<str>>,
    /// RESET ALL or DISCARD ALL.
    pub resets_all: bool,
    /// It calls set_config with a name that is not in the text: a parameter, perhaps.
    pub sets_by_parameter: bool,
    /// What it does with statements that are prepared by SQL.
    pub prepared: Vec<Prepared>,
    /// Channels it leaves, in order; those that DISCARD ALL leaves are told by the server.
    pub unlistens: Vec<Unlisten>,
    /// It may send notifications.
    pub notifies: bool,
    /// If it is a transaction command.
    pub block: Option<Block>,
}

impl Reading {
    /// Of a text that nobody has read.
    pub fn unknown() -> Reading {
        Reading { leaves: Kinds::ANYTHING, releases: Kinds::ANYTHING, ..Reading::default() }
    }

    /// Whether the text leaves a server session as it finds it.
    pub fn is_nothing(&self) -> bool {
        let Reading {
            leaves,
            releases,
            settings,
            resets,
            resets_all,
            sets_by_parameter,
            prepared,
            unlistens,
            notifies,
            block: _,
        } = self;
        (*leaves | *releases).is_empty()
            && settings.is_empty()
            && resets.is_empty()
            && !resets_all
            && !sets_by_parameter
            && prepared.is_empty()
            && unlistens.is_empty()
            && !notifies
    }

    /// What it runs that was prepared before, by name: what it gives is what they give.
    pub fn uses(&self) -> impl Iterator<Item = &str> {
        self.prepared.iter().filter_map(|prepared| match prepared {
            Prepared::Used(name) => Some(&**name),
            Prepared::Made(_) | Prepared::Dropped(_) => None,
        })
    }
}

/// Reads a text.
pub fn read(text: &[u8]) -> Reading {
    if is_dull(text) { Reading::default() } else { read_all(text) }
}

/// As [`read`], word by word.
pub(super) fn read_all(text: &[u8]) -> Reading {
    let mut reader = Reader::new(text);
    while !reader.lexer.rest().is_empty() {
        reader.statement();
    }
    if reader.statements != 1 {
        reader.reading.block = None;
        // Whoever would repeat the text elsewhere would repeat what is beside it, too.
        let made = |prepared: &Prepared| matches!(prepared, Prepared::Made(_));
        if reader.reading.prepared.iter().any(made) {
            reader.reading.leaves |= Kinds::PREPARED;
            reader.reading.prepared.retain(|prepared| !made(prepared));
        }
    }
    reader.reading
}

/// A keyword in lower case, if it is short enough to be one.
pub(super) struct Keyword {
    bytes: [u8; Keyword::MAX],
    length: usize,
}

impl Keyword {
    const MAX: usize = 32;

    pub(super) fn new(word: &[u8]) -> Keyword {
        let mut bytes = [0; Keyword::MAX];
        let length = word.len().min(Keyword::MAX);
        bytes.iter_mut().zip(word).for_each(|(to, from)| *to = from.to_ascii_lowercase());
        Keyword { bytes, length }
    }

    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

pub(super) struct Reader<'a> {
    pub(super) lexer: Lexer<'a>,
    pub(super) reading: Reading,
    statements: usize,
    /// Words of this statement that say what TEMP means in it.
    creates: bool,
    after_into: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Reader<'a> {
        Reader {
            lexer: Lexer::new(text),
            reading: Reading::default(),
            statements: 0,
            creates: false,
            after_into: false,
        }
    }

    fn statement(&mut self) {
        let first = loop {
            match self.lexer.next() {
                Some(Token::Other(b';')) => {}
                Some(token) => break token,
                None => return,
            }
        };
        self.statements += 1;
        (self.creates, self.after_into) = (false, false);
        let Token::Word(word) = first else { return self.rest(Some(first)) };
        let next = match Keyword::new(word).get() {
            b"set" => self.set(),
            b"reset" => self.reset(),
            b"prepare" => self.prepare(),
            b"deallocate" => self.deallocate(),
            b"discard" => self.discard(),
            b"declare" => self.declare(),
            b"listen" => self.leaves(Kinds::LISTENS),
            b"unlisten" => self.unlisten(),
            b"notify" => {
                self.reading.notifies = true;
                self.lexer.next()
            }
            b"close" => self.releases(Kinds::CURSORS),
            b"drop" => self.releases(Kinds::TEMPORARY),
            b"load" => self.leaves(Kinds::LIBRARIES),
            b"do" => self.block(),
            b"call" => {
                self.reading.releases |= Kinds::ANYTHING;
                self.leaves(Kinds::ANYTHING)
            }
            b"begin" => self.begin(false),
            b"start" => self.begin(true),
            b"commit" | b"end" => self.end(Block::Commit),
            b"rollback" | b"abort" => self.end(Block::Rollback),
            _ => Some(first),
        };
        self.rest(next);
    }

    /// The rest of a statement, beginning with a token that is read already.
    fn rest(&mut self, next: Option<Token<'a>>) {
        let mut next = next;
        while let Some(token) = next {
            match token {
                Token::Other(b';') => return,
                Token::Word(word) | Token::Quoted(word) => self.word(word),
                Token::Text(_) | Token::Other(_) => {}
            }
            next = self.lexer.next();
        }
    }

    /// A word that may stand anywhere. What is new here has to be new to [`is_dull`] too.
    fn word(&mut self, word: &[u8]) {
        let after_into = std::mem::take(&mut self.after_into);
        let first = word.first().map(u8::to_ascii_lowercase);
        if word.len() < 4 || !matches!(first, Some(b'c' | b'e' | b'i' | b'p' | b's' | b't')) {
            return;
        }
        match Keyword::new(word).get() {
            b"set_config" => self.set_config(),
            b"create" => self.creates = true,
            b"pg_notify" => self.reading.notifies = true,
            b"into" => self.after_into = true,
            b"temp" | b"temporary" if self.creates || after_into => {
                self.reading.leaves |= Kinds::TEMPORARY;
            }
            schema if schema.starts_with(b"pg_temp") => self.reading.leaves |= Kinds::TEMPORARY,
            b"execute" => {
                if let Some(name) = self.name() {
                    self.reading.prepared.push(Prepared::Used(name));
                }
            }
            lock if lock.starts_with(b"pg_advisory_unlock") => self.reading.releases |= Kinds::LOCKS,
            b"pg_advisory_lock"
            | b"pg_advisory_lock_shared"
            | b"pg_try_advisory_lock"
            | b"pg_try_advisory_lock_shared" => self.reading.leaves |= Kinds::LOCKS,
            _ => {}
        }
    }

    /// `DO 'code'`: it may do anything; what it says of settings by name is known by name.
    fn block(&mut self) -> Option<Token<'a>> {
        self.reading.releases |= Kinds::ANYTHING;
        self.reading.leaves |= Kinds::ANYTHING;
        let mut next = self.lexer.next();
        while let Some(token) = next {
            match token {
                Token::Other(b';') => return next,
                Token::Text(code) => {
                    // A block within is text to the one around it, so this goes no deeper.
                    let mut inner = Reader::new(code);
                    inner.rest_of_all();
                    self.reading.settings.append(&mut inner.reading.settings);
                }
                Token::Word(_) | Token::Quoted(_) | Token::Other(_) => {}
            }
            next = self.lexer.next();
        }
        None
    }

    /// Looks at all words that may stand anywhere.
    fn rest_of_all(&mut self) {
        while !self.lexer.rest().is_empty() {
            let next = self.lexer.next();
            self.rest(next);
        }
    }

    fn leaves(&mut self, kinds: Kinds) -> Option<Token<'a>> {
        self.reading.leaves |= kinds;
        self.lexer.next()
    }

    fn releases(&mut self, kinds: Kinds) -> Option<Token<'a>> {
        self.reading.releases |= kinds;
        self.lexer.next()
    }

    /// The next word in lower case; nothing else is taken.
    pub(super) fn keyword(&mut self) -> Keyword {
        match Lexer::new(self.lexer.rest()).next() {
            Some(Token::Word(word)) => {
                self.lexer.next();
                Keyword::new(word)
            }
            Some(Token::Quoted(_) | Token::Text(_) | Token::Other(_)) | None => Keyword::new(b""),
        }
    }

    /// A name, as the server knows it; `None` if there is none, or one that the server would cut.
    pub(super) fn name(&mut self) -> Option<Box<str>> {
        let name = match Lexer::new(self.lexer.rest()).next()? {
            Token::Word(word) => String::from_utf8(word.to_ascii_lowercase()).ok()?,
            Token::Quoted(name) => String::from_utf8(name.to_vec()).ok()?.replace("\"\"", "\""),
            Token::Text(_) | Token::Other(_) => return None,
        };
        self.lexer.next();
        (name.len() <= NAME_BYTES).then(|| name.into())
    }

    fn discard(&mut self) -> Option<Token<'a>> {
        match self.keyword().get() {
            b"all" => {
                self.reading.resets_all = true;
                self.reading.releases |= Kinds::ANYTHING;
                // What the text left before it is gone.
                self.reading.leaves = Kinds::empty();
                self.reading.settings.clear();
                self.reading.resets.clear();
            }
            b"temp" | b"temporary" => self.reading.releases |= Kinds::TEMPORARY,
            _ => {}
        }
        self.lexer.next()
    }

    fn declare(&mut self) -> Option<Token<'a>> {
        let mut next = self.lexer.next();
        let mut before_hold = None;
        while let Some(token) = next {
            match token {
                Token::Other(b';') => return next,
                Token::Word(word) if word.eq_ignore_ascii_case(b"for") => return next,
                Token::Word(word) if word.eq_ignore_ascii_case(b"hold") => {
                    if before_hold.is_some_and(|word: &[u8]| word.eq_ignore_ascii_case(b"with")) {
                        self.reading.leaves |= Kinds::CURSORS;
                    }
                }
                Token::Word(word) => before_hold = Some(word),
                Token::Quoted(_) | Token::Text(_) | Token::Other(_) => {}
            }
            next = self.lexer.next();
        }
        None
    }
}

/// PostgreSQL cuts longer names (NAMEDATALEN).
pub(super) const NAME_BYTES: usize = 63;
