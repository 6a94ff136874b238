//! When an edit is made: `if:` of a header, or of a reply's status.

use regex::bytes::Regex;

/// What must hold.
#[derive(Debug, Clone)]
pub struct Condition {
    /// A header of the head that is edited.
    pub header: Option<(Box<[u8]>, Test)>,
    /// Statuses of a reply, first and last; any if empty.
    pub status: Vec<(u16, u16)>,
}

/// What a header must be.
#[derive(Debug, Clone)]
pub enum Test {
    /// There.
    Present,
    /// Not there.
    Absent,
    /// One of its values is exactly this.
    Equals(Box<[u8]>),
    /// One of its values matches.
    Matches(Regex),
}

impl Condition {
    /// Whether it holds for a head: `values` gives those of a header as the edits before left them.
    pub fn holds(&self, status: Option<u16>, values: impl Fn(&[u8]) -> Vec<Box<[u8]>>) -> bool {
        let in_status = |status| self.status.iter().any(|(first, last)| (*first..=*last).contains(&status));
        if !self.status.is_empty() && !status.is_some_and(in_status) {
            return false;
        }
        self.header.as_ref().is_none_or(|(name, test)| {
            let found = values(name);
            match test {
                Test::Present => !found.is_empty(),
                Test::Absent => found.is_empty(),
                Test::Equals(wanted) => found.iter().any(|value| value == wanted),
                Test::Matches(pattern) => found.iter().any(|value| pattern.is_match(value)),
            }
        })
    }
}

/// Reads `404` or `5xx`.
pub fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse::<u16>().ok().filter(|class| (2..=5).contains(class) && text.len() == 3)?;
        return Some((class * 100, class * 100 + 99));
    }
    let status = text.parse::<u16>().ok().filter(|status| (200..=599).contains(status) && text.len() == 3)?;
    Some((status, status))
}
