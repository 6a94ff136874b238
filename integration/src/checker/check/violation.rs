//! What can be wrong with a history, and what shows it.

use std::fmt;

use super::super::history::Record;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A content was seen although another had replaced it.
    StaleRead,
    /// A content was seen although it had been deleted.
    LostDelete,
    /// A content was seen although it had been missed before.
    Returned,
    /// A cas succeeded although something lay between what it had seen and itself.
    WrongSwap,
    /// An increment or an append is missing, or was done twice.
    LostStep,
    /// A content was seen that nobody had written, at least not yet.
    Unwritten,
    /// Something was found where nothing can have been.
    FoundNothing,
    /// A delete was told that there had been something, where nothing can have been.
    DeletedNothing,
}

impl What {
    /// Whether it may happen while keys move. A delete cannot tell a placeholder of the resize from an item: what
    /// was to be gone is gone. And a miss proves nothing: who asks between the two steps of somebody else's
    /// conditional write may meet neither the old value nor the new one, as the protocol's model allows. Nothing is
    /// seen in either case that should not be; how often it happens is what the hit ratio is measured for.
    #[must_use]
    pub fn is_a_resizes_right(self) -> bool {
        matches!(self, Self::DeletedNothing | Self::Returned)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StaleRead => "stale read",
            Self::LostDelete => "seen after an acknowledged delete",
            Self::Returned => "seen after a miss",
            Self::WrongSwap => "cas succeeded wrongly",
            Self::LostStep => "increment or append lost or repeated",
            Self::Unwritten => "content that nobody had written",
            Self::FoundNothing => "found where nothing was",
            Self::DeletedNothing => "deleted where nothing was",
        })
    }
}

/// What is wrong, and the operations that show it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What is wrong.
    pub what: What,
    /// Which operations contradict each other.
    pub operations: Vec<Record>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.what, self.text)?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "    {operation}"))
    }
}

pub(super) fn violation(what: What, text: impl Into<String>, operations: &[Option<&Record>]) -> Violation {
    let operations = operations.iter().copied().flatten().copied().collect();
    Violation { what, operations, text: text.into() }
}
