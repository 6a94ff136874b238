//! What is wrong with a configuration: every error at once, each with its place.

use std::fmt;

/// Where semantic errors are collected. A path names the place: keys, and indices in lists.
#[derive(Debug, Default)]
pub struct Issues {
    found: Vec<Issue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Issue {
    path: Vec<String>,
    at_key: bool,
    message: String,
    help: Option<String>,
}

impl Issues {
    /// An error of the value at `path`, as `["clusters", "main", "endpoints", "0"]`; `help` says what to write
    /// instead. If the value is not in the file (a default), the error is shown at the nearest place above.
    pub fn at(&mut self, path: &[&str], message: impl Into<String>, help: Option<&str>) {
        self.push(path, false, message.into(), help);
    }

    /// An error of the key at `path` rather than of its value.
    pub fn at_key(&mut self, path: &[&str], message: impl Into<String>, help: Option<&str>) {
        self.push(path, true, message.into(), help);
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn push(&mut self, path: &[&str], at_key: bool, message: String, help: Option<&str>) {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        self.found.push(Issue { path, at_key, message, help: help.map(str::to_owned) });
    }
}

/// Every error of a configuration, ready to be shown.
#[derive(Debug, Clone)]
pub struct Report {
    text: String,
}

impl Report {
    /// A report of one error without a place.
    pub fn plain(message: impl Into<String>) -> Self {
        Self { text: message.into() }
    }

    pub(super) fn of(issues: &Issues) -> Self {
        Self { text: issues.found.iter().map(|i| format!("{}: {}\n", i.path.join("."), i.message)).collect() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Report {}
