//! What is wrong with a PgBouncer configuration, all of it, each with its file and line.

use std::fmt;
use std::path::Path;

use super::ini::Place;
use super::source::Source;

/// Errors in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    name: String,
    found: Vec<String>,
}

impl Problems {
    /// What errors without a line are told of.
    pub(super) fn name(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    pub(super) fn at(&mut self, place: &Place, message: impl fmt::Display) {
        self.found.push(format!("{place}: {message}"));
    }

    /// Of a setting, where it stands; of the whole file if it is left out.
    pub(super) fn setting(&mut self, source: &Source, name: &str, message: impl fmt::Display) {
        match source.settings.get(name) {
            Some(value) => self.at(&value.place, format_args!("{name} = {}: {message}", value.text)),
            None => self.whole(format_args!("{name}: {message}")),
        }
    }

    /// Of the configuration as a whole.
    pub(super) fn whole(&mut self, message: impl fmt::Display) {
        self.found.push(format!("{}: {message}", self.name));
    }

    /// Of a file as a whole.
    pub(super) fn of_file(&mut self, path: &Path, message: impl fmt::Display) {
        self.found.push(format!("{}: {message}", path.display()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found.join("\n"))
    }
}
