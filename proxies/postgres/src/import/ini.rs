//! PgBouncer's file as PgBouncer reads it: sections, keys, values, and files that include others.
//!
//! Its grammar is stricter than most INI readers and looser in one place: `%include` goes on in the section that the
//! included file ends in. So it has a reader of its own, which keeps file and line of everything for the errors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::problems::Problems;

/// How deep files may include others, as in PgBouncer; one that includes itself ends here.
const INCLUDES_MAX: usize = 10;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    file: Rc<str>,
    line: usize,
}

impl Place {
    pub(super) fn new(file: &Rc<str>, line: usize) -> Place {
        Place { file: Rc::clone(file), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The sections that PgBouncer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Databases,
    Users,
    Pgbouncer,
    Peers,
}

/// `key = value`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: Section,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Place,
}

/// Reads a file and those it includes, from the folder in which the program runs, as PgBouncer does.
pub(super) fn read(path: &Path, problems: &mut Problems) -> Vec<Entry> {
    let mut reader = Reader { section: Current::None, entries: Vec::new(), problems };
    match text_of(path) {
        Ok(text) => reader.read(path, &text, 0),
        Err(error) => reader.problems.of_file(path, error),
    }
    reader.entries
}

/// A file's text, or why it cannot be had.
pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| match error.kind() == std::io::ErrorKind::NotFound {
        true => "there is no such file".to_owned(),
        false => format!("cannot read it: {error}"),
    };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Which section a line belongs to.
#[derive(Clone, Copy)]
enum Current {
    None,
    Known(Section),
    /// It was reported where it begins; what is in it is passed over.
    Unknown,
}

struct Reader<'p> {
    section: Current,
    entries: Vec<Entry>,
    problems: &'p mut Problems,
}

impl Reader<'_> {
    fn read(&mut self, path: &Path, text: &str, depth: usize) {
        let name: Rc<str> = path.display().to_string().into();
        for (index, line) in text.lines().enumerate() {
            let place = Place::new(&name, index + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            if let Some(included) = line.strip_prefix("%include").filter(|rest| rest.starts_with([' ', '\t']))
            {
                self.include(&place, Path::new(included.trim()), depth);
            } else if let Some(rest) = line.strip_prefix('[') {
                self.begin(&place, rest);
            } else {
                self.entry(place, line);
            }
        }
    }

    fn include(&mut self, place: &Place, path: &Path, depth: usize) {
        if depth == INCLUDES_MAX {
            self.problems.at(place, format!("more than {INCLUDES_MAX} files include each other"));
            return;
        }
        match text_of(path) {
            Ok(text) => self.read(path, &text, depth + 1),
            Err(error) => {
                let from = if path.is_absolute() { "" } else { " (taken from where this program runs)" };
                self.problems.at(place, format!("%include {}: {error}{from}", path.display()));
            }
        }
    }

    fn begin(&mut self, place: &Place, rest: &str) {
        let Some((name, after)) = rest.split_once(']') else {
            self.problems.at(place, "expected `]` after the name of a section");
            return;
        };
        self.section = match name {
            "databases" => Current::Known(Section::Databases),
            "users" => Current::Known(Section::Users),
            "pgbouncer" => Current::Known(Section::Pgbouncer),
            "peers" => Current::Known(Section::Peers),
            _ => {
                let expected = "expected [databases], [users], [pgbouncer] or [peers]";
                self.problems.at(place, format!("there is no section `{name}`; {expected}"));
                Current::Unknown
            }
        };
        let after = after.trim();
        if !after.is_empty() {
            self.entry(place.clone(), after);
        }
    }

    fn entry(&mut self, place: Place, line: &str) {
        let Some((key, value)) = key_of(line).and_then(|(key, rest)| {
            let value = rest.trim_start().strip_prefix('=')?;
            Some((key, value.trim().to_owned()))
        }) else {
            self.problems
                .at(&place, "expected `key = value`, `[section]`, `%include FILE`, or `;` for a comment");
            return;
        };
        match self.section {
            Current::Known(section) => self.entries.push(Entry { section, key, value, place }),
            Current::None => self.problems.at(&place, format!("`{key}` stands before any section")),
            Current::Unknown => {}
        }
    }
}

/// The key a line begins with, and the rest. In double quotes anything may stand in it, `""` for one quote.
fn key_of(line: &str) -> Option<(String, &str)> {
    if let Some(quoted) = line.strip_prefix('"') {
        return unquoted(quoted, '"');
    }
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-*".contains(c))).unwrap_or(line.len());
    let (key, rest) = line.split_at_checked(end)?;
    (!key.is_empty()).then(|| (key.to_owned(), rest))
}

/// Reads to the closing quote, a doubled one being one; `text` begins after the opening one.
pub(super) fn unquoted(text: &str, quote: char) -> Option<(String, &str)> {
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once(quote)?;
        value.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

/// A path as PgBouncer takes it: from where it runs.
pub(super) fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}
