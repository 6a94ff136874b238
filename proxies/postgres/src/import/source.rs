//! A PgBouncer configuration as PgBouncer understands it: every value tested, the last of each name, users included.

use std::collections::BTreeMap;

use groove_common::config::Duration;

use super::ini::{self, Entry, Place, Section};
use super::pairs;
use super::problems::Problems;
use super::table::{self, DATABASE_KEYS, Kind, POOL_MODES, USER_KEYS};
use super::userlist::{self, Known};

/// A value, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) place: Place,
}

/// `name = key=value …`.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) place: Place,
    pairs: BTreeMap<String, String>,
}

/// The whole of it. Whatever of it is wrong is among the problems, and missing here.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) settings: BTreeMap<&'static str, Value>,
    pub(super) databases: Vec<Line>,
    /// The database `*`.
    pub(super) fallback: Option<Line>,
    pub(super) users: Vec<Line>,
    pub(super) peers: Vec<Place>,
    /// Of `auth_file`; none if there is no such setting, or no such file.
    pub(super) known: Option<Vec<Known>>,
}

/// Understands what was read.
pub(super) fn understand(entries: Vec<Entry>, problems: &mut Problems) -> Source {
    let mut source = Source::default();
    for entry in entries {
        match entry.section {
            Section::Pgbouncer => source.set(entry, problems),
            Section::Databases => source.add_database(entry, problems),
            Section::Users => {
                if let Some(line) = line(entry, &USER_KEYS, problems) {
                    replace(&mut source.users, line);
                }
            }
            Section::Peers => source.peers.push(entry.place),
        }
    }
    source.read_userlist(problems);
    source
}

impl Source {
    /// What a setting says; what is empty says nothing.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// A setting that is one of several words, in small letters.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_ascii_lowercase)
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.text(name).and_then(number)
    }

    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(seconds)
    }

    fn set(&mut self, entry: Entry, problems: &mut Problems) {
        let Entry { key, value, place, .. } = entry;
        let Some(setting) = table::setting(&key) else {
            problems.at(&place, format!("PgBouncer has no setting `{key}`"));
            return;
        };
        let expected = match setting.kind {
            Kind::Text => None,
            Kind::Number if value.is_empty() || integer(&value).is_some() => None,
            Kind::Number => Some("a whole number".to_owned()),
            Kind::Seconds if value.is_empty() || seconds(&value).is_some() => None,
            Kind::Seconds => Some("a number of seconds".to_owned()),
            Kind::OneOf(words) if words.iter().any(|word| word.eq_ignore_ascii_case(&value)) => None,
            Kind::OneOf(words) => Some(words.join(", ")),
        };
        match expected {
            Some(expected) => problems.at(&place, format!("{key} = {value}: expected {expected}")),
            None => drop(self.settings.insert(setting.name, Value { text: value, place })),
        }
    }

    fn add_database(&mut self, entry: Entry, problems: &mut Problems) {
        // `user` is of databases only: a list of its own would be longer than this word.
        let keys: Vec<&str> = DATABASE_KEYS.into_iter().chain(["user"]).collect();
        let Some(line) = line(entry, &keys, problems) else { return };
        match line.name.as_str() {
            "pgbouncer" => problems.at(&line.place, "PgBouncer keeps the name `pgbouncer` for its console"),
            "groove" => {
                problems.at(
                    &line.place,
                    "groove-postgres keeps the name `groove` for its console: give it another",
                );
            }
            "*" => self.fallback = Some(line),
            _ => replace(&mut self.databases, line),
        }
    }

    fn read_userlist(&mut self, problems: &mut Problems) {
        let Some(file) = self.text("auth_file") else { return };
        let path = std::path::Path::new(file);
        if let Ok(text) = ini::text_of(path) {
            self.known = Some(userlist::read(path, &text, problems));
        }
    }
}

/// The last of a name counts, at the place of the first.
fn replace(lines: &mut Vec<Line>, line: Line) {
    match lines.iter_mut().find(|known| known.name == line.name) {
        Some(known) => *known = line,
        None => lines.push(line),
    }
}

fn line(entry: Entry, keys: &[&str], problems: &mut Problems) -> Option<Line> {
    let Entry { key: name, value, place, .. } = entry;
    let read = match pairs::read(&value) {
        Ok(read) => read,
        Err(expected) => {
            problems.at(&place, format!("{name}: {expected}"));
            return None;
        }
    };
    let mut good = true;
    for (key, value) in &read {
        let expected = match key.as_str() {
            _ if !keys.contains(&key.as_str()) => {
                problems.at(&place, format!("{name}: PgBouncer knows no `{key}` here"));
                good = false;
                continue;
            }
            "port" if value.parse::<u16>().is_ok_and(|port| port > 0) => None,
            "port" => Some("a port, 1 to 65535"),
            "pool_mode" if POOL_MODES.iter().any(|mode| mode.eq_ignore_ascii_case(value)) => None,
            "pool_mode" => Some("session, transaction or statement"),
            "server_lifetime" if seconds(value).is_some() => None,
            "server_lifetime" => Some("a number of seconds"),
            _ if is_number(key) && integer(value).is_none() => Some("a whole number"),
            _ => None,
        };
        if let Some(expected) = expected {
            problems.at(&place, format!("{name}: {key}={value}: expected {expected}"));
            good = false;
        }
    }
    good.then(|| Line { name, place, pairs: read.into_iter().collect() })
}

fn is_number(key: &str) -> bool {
    key.starts_with("max_") || key.ends_with("pool_size") || key == "reserve_pool"
}

impl Line {
    /// What is said of a key; what is empty says nothing.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn number(&self, key: &str) -> Option<u32> {
        self.text(key).and_then(number)
    }

    pub(super) fn seconds(&self, key: &str) -> Option<Duration> {
        self.text(key).and_then(seconds)
    }
}

/// As C writes numbers, which PgBouncer asks `strtol` for: `0x1f`, `0770`, `25`, `-1`.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        (None, Some(_) | None) => (lower.as_str(), 10),
    };
    // A second sign would be taken.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i32::from_str_radix(digits, base).ok().map(|number| sign * i64::from(number))
}

/// A negative one says nothing, in PgBouncer too.
fn number(text: &str) -> Option<u32> {
    integer(text).and_then(|number| u32::try_from(number).ok())
}

fn seconds(text: &str) -> Option<Duration> {
    // Longer than a century is no wait but for ever, and more than a clock can add.
    const SECONDS_MAX: f64 = 3_155_760_000.0;
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))?;
    let exact = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    // Whole milliseconds: what is written has to be read by people.
    Some(Duration::from_millis(u64::try_from(exact.as_millis()).ok()?))
}
