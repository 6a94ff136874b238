//! A session's settings (GUCs): what a client believes, what a server connection has, and what makes them equal.
//!
//! A server reports some settings whenever they change (ParameterStatus); those are compared by value. What a
//! client asked for, at startup or later, and is not reported (`search_path`, `statement_timeout`, ...) is kept beside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reported settings that no client can set.
const FIXED: [&str; 6] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
];

/// Settings that say as whom a session acts, in the order in which they are set: after all others, as they may
/// take the right to set those away.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];

type Values = BTreeMap<Box<str>, Box<str>>;

/// Settings as known on one side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What the server reports, under its own spelling.
    reported: Values,
    /// What was asked for and is not reported, and as whom the session acts; in lower case.
    asked: Values,
}

impl Settings {
    /// Notes a ParameterStatus.
    pub fn report(&mut self, name: &str, value: &str) {
        match self.reported.get_mut(name) {
            Some(known) => *known = value.into(),
            None => _ = self.reported.insert(name.into(), value.into()),
        }
    }

    /// Notes a setting that a client asked for and a server took; reported ones are known by their report, unless
    /// they say as whom the session acts: the report does not tell who asked.
    pub fn ask(&mut self, name: &str, value: &str) {
        let is_known = |name: &str| self.reported.keys().any(|known| known.eq_ignore_ascii_case(name));
        if identity(name).is_some() || !is_known(name) {
            self.asked.insert(name.to_ascii_lowercase().into(), value.into());
        }
    }

    /// A reported setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.reported.get(name).map(AsRef::as_ref)
    }

    /// What was asked for under this name, in lower case, if it is not reported.
    pub fn asked(&self, name: &str) -> Option<&str> {
        self.asked.get(name).map(AsRef::as_ref)
    }

    /// What the server reported, in alphabetical order.
    pub fn reported(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reported.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Whether a server tells of itself when this changes; not if it says as whom the session acts.
    pub fn is_reported(&self, name: &str) -> bool {
        identity(name).is_none() && self.reported.keys().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whether this is among them.
    pub fn has(&self, name: &str) -> bool {
        self.asked.contains_key(name) || self.is_reported(name)
    }

    /// Settings of an application's own, which no list of a server has.
    pub fn custom(&self) -> impl Iterator<Item = &str> {
        self.asked.keys().map(AsRef::as_ref).filter(|name: &&str| name.contains('.'))
    }

    /// Forgets what DISCARD ALL resets without a report.
    pub fn reset(&mut self) {
        self.asked.clear();
    }

    /// Forgets what RESET ALL resets without a report.
    pub fn reset_all(&mut self) {
        self.asked.retain(|name, _| identity(name).is_some());
    }

    /// Notes what a session has set, in place of what was known of it.
    pub fn set_asked<'a>(&mut self, asked: impl Iterator<Item = (&'a str, &'a str)>) {
        self.asked.clear();
        asked.for_each(|(name, value)| self.ask(name, value));
    }

    /// After a reset of what `is_named` (in lower case) and has, as its present value tells, been reset: these are as
    /// at the `startup` of the session.
    pub fn restore(
        &mut self,
        startup: &Settings,
        is_named: impl Fn(&str) -> bool,
        is_reset: impl Fn(&str, &str) -> bool,
    ) {
        for (name, value) in &mut self.reported {
            let at_startup = startup.reported.get(name).filter(|_| !FIXED.contains(&name.as_ref()));
            if let Some(at_startup) = at_startup
                && is_named(&name.to_ascii_lowercase())
                && is_reset(name, value)
            {
                value.clone_from(at_startup);
            }
        }
        for (name, value) in &startup.asked {
            if identity(name).is_none() && is_named(name) && !self.asked.contains_key(name) {
                self.asked.insert(name.clone(), value.clone());
            }
        }
    }

    /// What is reported otherwise by `other`.
    pub fn reported_unlike<'a>(&'a self, other: &'a Settings) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.reported().filter(|(name, value)| other.get(name) != Some(*value))
    }

    /// The query that makes a connection with these settings look like `wanted`; `None` if it does already.
    pub fn query_to(&self, wanted: &Settings) -> Option<String> {
        let resets = self.asked.keys().filter(|name| !wanted.asked.contains_key(*name));
        let reported = wanted.reported.iter().filter(|(name, value)| {
            self.reported.get(*name) != Some(*value) && !FIXED.contains(&name.as_ref())
        });
        let sets = wanted.asked.iter().filter(|(name, value)| self.asked.get(*name) != Some(*value));
        let mut calls = Vec::new();
        let others = |name: &str| identity(name).is_none();
        calls.extend(resets.filter(|name| others(name)).map(|name| set_config(name, None)));
        let sets = reported.chain(sets).filter(|(name, _)| others(name));
        calls.extend(sets.map(|(name, value)| set_config(name, Some(value))));
        let is_same_role = IDENTITY.iter().all(|name| self.asked.get(*name) == wanted.asked.get(*name));
        if calls.is_empty() && is_same_role {
            return None;
        }
        // The pool's own role sets the others, as it does at startup.
        if IDENTITY.iter().any(|name| self.asked.contains_key(*name)) {
            calls.splice(..0, IDENTITY.map(|name| set_config(name, None)));
        }
        let identity = IDENTITY.iter().filter_map(|name| Some((*name, wanted.asked.get(*name)?)));
        calls.extend(identity.map(|(name, value)| set_config(name, Some(value))));
        Some(format!("SELECT {}", calls.join(",")))
    }

    /// Whether the server that these were reported by is of another release than the one that has reported `other`.
    pub fn is_of_another_release(&self, other: &Settings) -> bool {
        self.get("server_version") != other.get("server_version")
    }

    /// These, as a server reports them that came with `initial` and is of another release: what it does not report is asked
    /// for, what it reports besides is as it came unless it was asked for.
    pub fn translated(&self, initial: &Settings) -> Settings {
        let mut settings = self.clone();
        settings.reported.retain(|name, value| {
            let is_known = FIXED.contains(&name.as_ref()) || initial.reported.contains_key(name);
            // PostgreSQL 15 knows nothing of it.
            if !is_known && name.as_ref() != "scram_iterations" {
                settings.asked.insert(name.to_ascii_lowercase().into(), value.clone());
            }
            is_known
        });
        for (name, value) in &initial.reported {
            if !settings.reported.contains_key(name) {
                let asked = settings.asked.remove(name.to_ascii_lowercase().as_str());
                settings.reported.insert(name.clone(), asked.unwrap_or_else(|| value.clone()));
            }
        }
        settings
    }

    /// Whether the same was asked for, as far as it is not reported.
    pub fn asks_like(&self, other: &Settings) -> bool {
        self.asked == other.asked
    }

    /// Takes over what the query of [`Settings::query_to`] set without a report.
    pub fn take_asked(&mut self, wanted: &Settings) {
        self.asked.clone_from(&wanted.asked);
    }

    /// Facts about the server that differ from what `other` was told: the client has to hear of them.
    pub fn news_for<'a>(&'a self, other: &'a Settings) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.reported().filter(|(name, value)| FIXED.contains(name) && other.get(name) != Some(*value))
    }
}

/// One query that sets all of these for the session; `None` if there are none.
pub fn set_query<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let calls: Vec<String> = settings.map(|(name, value)| set_config(name, Some(value))).collect();
    (!calls.is_empty()).then(|| format!("SELECT {}", calls.join(",")))
}

/// A query of [`Settings::query_to`] behind which anything may be sent at once: if it fails, the server ends the
/// session and reads no more (`exit_on_error`, since PostgreSQL 9.1). What a client sends never runs with other
/// settings, or as another role, than it asked for.
pub fn or_nothing(query: &str) -> String {
    // A statement of its own: the second is planned when it is in force.
    format!("SET exit_on_error=on;{query},{}", set_config("exit_on_error", Some("off")))
}

/// Sets for the session; without a value it resets.
fn set_config(name: &str, value: Option<&str>) -> String {
    let value = value.map_or_else(|| "NULL".to_owned(), quote);
    format!("pg_catalog.set_config({},{value},false)", quote(name))
}

/// The place of a setting among those that say as whom a session acts.
fn identity(name: &str) -> Option<usize> {
    IDENTITY.iter().position(|known| known.eq_ignore_ascii_case(name))
}

/// The settings that a startup packet asks for, those inside `options` included, in the order they count.
pub fn of_startup(parameters: &[(String, String)]) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => settings.extend(of_options(value)),
            protocol if protocol.starts_with("_pq_.") => {}
            _ => settings.push((name.clone(), value.clone())),
        }
    }
    settings.sort_by_key(|(name, _)| identity(name));
    settings
}

/// `-c name=value`, `-cname=value` and `--name=value`, with backslashes before spaces, as PostgreSQL reads them.
fn of_options(options: &str) -> Vec<(String, String)> {
    let mut words = words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().unwrap_or_default(),
            Some(rest) => rest.to_owned(),
            None => continue,
        };
        if let Some((name, value)) = assignment.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for character in text.chars() {
        if !escaped && character == '\\' {
            escaped = true;
        } else if !escaped && character.is_ascii_whitespace() {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(character);
            escaped = false;
        }
    }
    words.extend(word);
    words
}

/// An expression that reads the same whatever `standard_conforming_strings` and `client_encoding` are.
pub fn quote(text: &str) -> String {
    if text.is_ascii() {
        return format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    }
    let hex = text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("pg_catalog.convert_from(pg_catalog.decode('{hex}','hex'),'UTF8')")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(reported: &[(&str, &str)], asked: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        reported.iter().for_each(|(n, v)| settings.report(n, v));
        asked.iter().for_each(|(n, v)| settings.ask(n, v));
        settings
    }

    #[test]
    fn only_what_differs_is_set() {
        let server =
            settings(&[("TimeZone", "UTC"), ("DateStyle", "ISO, MDY"), ("server_version", "15")], &[]);
        assert_eq!(server.query_to(&server.clone()), None);
        let client =
            settings(&[("TimeZone", "Etc/UTC"), ("DateStyle", "ISO, MDY"), ("server_version", "14")], &[]);
        assert_eq!(
            server.query_to(&client).as_deref(),
            Some("SELECT pg_catalog.set_config(E'TimeZone',E'Etc/UTC',false)")
        );
        assert_eq!(server.news_for(&client).collect::<Vec<_>>(), [("server_version", "15")]);
    }

    /// PostgreSQL 18 reports two settings more than 15, one of which 15 does not have.
    #[test]
    fn a_server_of_another_release_reports_other_settings() {
        let (old, new) = (
            settings(&[("TimeZone", "UTC"), ("server_version", "15")], &[]),
            settings(
                &[
                    ("TimeZone", "UTC"),
                    ("scram_iterations", "4096"),
                    ("search_path", "public"),
                    ("server_version", "18"),
                ],
                &[],
            ),
        );
        assert!(old.is_of_another_release(&new) && !old.is_of_another_release(&old.clone()));
        let before = settings(
            &[("TimeZone", "UTC"), ("server_version", "15")],
            &[("search_path", "mine"), ("a.b", "1")],
        );
        let after = before.translated(&new);
        assert_eq!(calls(&new, &after), ["E'search_path',E'mine'", "E'a.b',E'1'"]);
        assert_eq!(after.get("server_version"), Some("15"), "which the client is told");
        assert_eq!(new.query_to(&old.translated(&new)), None);
        // The other way round, and on a connection that another session has used.
        let back = after.translated(&old);
        assert_eq!(back.asked("search_path"), Some("mine"));
        assert_eq!(calls(&old, &back), ["E'a.b',E'1'", "E'search_path',E'mine'"]);
        let mut used = new.clone();
        used.report("search_path", "theirs");
        assert_eq!(calls(&used, &old.translated(&new)), ["E'search_path',E'public'"]);
    }

    #[test]
    fn what_another_asked_for_is_reset() {
        let server = settings(&[], &[("search_path", "theirs"), ("my.own", "1")]);
        let client = settings(&[], &[("Statement_Timeout", "1s")]);
        assert_eq!(
            calls(&server, &client),
            ["E'my.own',NULL", "E'search_path',NULL", "E'statement_timeout',E'1s'"]
        );
    }

    #[test]
    fn a_role_is_left_before_all_else_and_taken_after_it() {
        let plain = settings(&[("session_authorization", "pool")], &[]);
        let bob = settings(
            &[("session_authorization", "bob")],
            &[("role", "r"), ("Session_Authorization", "bob"), ("work_mem", "1MB")],
        );
        assert_eq!(
            calls(&plain, &bob),
            ["E'work_mem',E'1MB'", "E'session_authorization',E'bob'", "E'role',E'r'"]
        );
        assert_eq!(
            calls(&bob, &plain),
            ["E'session_authorization',NULL", "E'role',NULL", "E'work_mem',NULL"]
        );
        let other =
            settings(&[("session_authorization", "bob")], &[("role", "r"), ("session_authorization", "bob")]);
        assert_eq!(
            calls(&bob, &other),
            [
                "E'session_authorization',NULL",
                "E'role',NULL",
                "E'work_mem',NULL",
                "E'session_authorization',E'bob'",
                "E'role',E'r'"
            ]
        );
    }

    /// What the query from one to the other sets, in order.
    fn calls(from: &Settings, to: &Settings) -> Vec<String> {
        let query = from.query_to(to).unwrap_or_default();
        let calls = query.strip_prefix("SELECT ").unwrap_or_default().split("pg_catalog.set_config(");
        calls.skip(1).map(|call| call.trim_end_matches(',').replace(",false)", "")).collect()
    }

    #[test]
    fn a_reported_setting_is_not_asked_twice() {
        let both = settings(&[("TimeZone", "UTC")], &[("timezone", "utc")]);
        assert_eq!(both, settings(&[("TimeZone", "UTC")], &[]));
    }

    #[test]
    fn values_cannot_break_out() {
        assert_eq!(quote(r"a'b\c"), r"E'a\'b\\c'");
        assert_eq!(quote("é'"), "pg_catalog.convert_from(pg_catalog.decode('c3a927','hex'),'UTF8')");
    }

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let parameters = [
            ("user".to_owned(), "u".to_owned()),
            ("options".to_owned(), r"-c search_path=a,\ b --work-mem=1MB -cx.y=a=b -d".to_owned()),
            ("application_name".to_owned(), "app".to_owned()),
            ("_pq_.x".to_owned(), "1".to_owned()),
        ];
        let settings = of_startup(&parameters);
        let settings: Vec<_> = settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            settings,
            [("search_path", "a, b"), ("work_mem", "1MB"), ("x.y", "a=b"), ("application_name", "app")]
        );
    }
}
