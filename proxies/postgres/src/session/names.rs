//! What one client calls its prepared statements, where server connections are shared.

use std::collections::HashMap;
use std::sync::Arc;

use super::prepared::{Moment, Statement};
use crate::error::Error;

/// What each name takes beside itself and its statement's text, in bytes.
const OVERHEAD: usize = 64;

/// How many statements one client may have.
#[derive(Debug, Clone, Copy)]
pub struct NameBounds {
    /// Their number.
    pub count: u32,
    /// Bytes of their names and texts. A text that many clients share counts for each: it lives as long as any.
    pub bytes: u32,
}

/// A client's names and what they mean.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<Box<[u8]>, Known, foldhash::fast::RandomState>,
    bytes: usize,
}

/// What a name means.
#[derive(Debug, Clone)]
pub struct Known {
    /// The statement.
    pub statement: Arc<Statement>,
    /// When its client had it parsed.
    pub since: Moment,
}

impl Names {
    /// None yet.
    pub fn new() -> Names {
        Names { known: HashMap::default(), bytes: 0 }
    }

    /// What a name means.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.known.get(name).map(|known| &known.statement)
    }

    /// The same, and since when.
    pub fn known(&self, name: &[u8]) -> Option<&Known> {
        self.known.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        self.known.iter().map(|(name, known)| (name.as_ref(), &known.statement))
    }

    /// Whether one more may be added.
    pub fn check_room(&self, bounds: NameBounds, name: &[u8], content: &[u8]) -> Result<(), Error> {
        let NameBounds { count, bytes } = bounds;
        if self.known.len() >= count as usize {
            return Err(Error::TooManyStatements { max: count as usize });
        }
        if self.bytes + cost(name, content) > bytes as usize {
            return Err(Error::StatementBytes { max: bytes as usize });
        }
        Ok(())
    }

    /// Adds a name, for which there [is room](Names::check_room).
    pub fn insert(&mut self, name: Box<[u8]>, statement: Arc<Statement>, since: Moment) {
        self.bytes += cost(&name, &statement.content);
        if let Some(replaced) = self.known.get(&name) {
            self.bytes -= cost(&name, &replaced.statement.content);
        }
        self.known.insert(name, Known { statement, since });
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Known> {
        let known = self.known.remove(name)?;
        self.bytes -= cost(name, &known.statement.content);
        Some(known)
    }

    /// Puts another statement of the same content in the place of each.
    pub fn renew(&mut self, renewed: impl Fn(&Statement) -> Arc<Statement>) {
        self.known.values_mut().for_each(|known| known.statement = renewed(&known.statement));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }

    /// Holds after each entry, or what is above is wrong.
    pub fn check_invariants(&self, bounds: NameBounds) {
        debug_assert!(self.known.len() <= bounds.count as usize, "bounded");
        debug_assert!(self.bytes <= bounds.bytes as usize, "bounded");
        debug_assert_eq!(
            self.bytes,
            self.known.iter().map(|(name, known)| cost(name, &known.statement.content)).sum::<usize>()
        );
    }
}

fn cost(name: &[u8], content: &[u8]) -> usize {
    OVERHEAD + name.len() + content.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::prepared::Statements;

    #[test]
    fn names_are_bounded_by_number_and_by_bytes() {
        let statements = Statements::default();
        let bounds = NameBounds { count: 3, bytes: 1000 };
        let mut names = Names::new();
        let large = statements.intern(&[b'x'; 500]);
        names.insert((*b"a").into(), Arc::clone(&large), 0);
        assert!(matches!(
            names.check_room(bounds, b"b", &large.content),
            Err(Error::StatementBytes { max: 1000 })
        ));
        names.insert((*b"a").into(), Arc::clone(&large), 0);
        names.check_invariants(bounds);
        names.check_room(bounds, b"b", b"small").unwrap();
        names.insert((*b"b").into(), statements.intern(b"small"), 0);
        assert!(names.remove(b"a").is_some());
        names.check_room(bounds, b"b", &large.content).unwrap();
        names.insert((*b"c").into(), statements.intern(b"small"), 0);
        names.insert((*b"d").into(), statements.intern(b"small"), 0);
        assert!(matches!(names.check_room(bounds, b"e", b""), Err(Error::TooManyStatements { max: 3 })));
        names.check_invariants(bounds);
        names.clear();
        names.check_invariants(bounds);
        names.check_room(bounds, b"e", &large.content).unwrap();
    }
}
