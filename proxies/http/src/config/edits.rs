//! Header edits as written, and what is wrong with them.

use crate::edit::condition::statuses;
use crate::edit::has_capture;
use crate::edit::template::{Side, Template};
use crate::wire::Name;
use crate::wire::scan::is_token;
use groove_common::config::Issues;
use regex::bytes::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Edits to a head, in this order: removed, renamed, replaced, set, added; then those of `when`, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Replace every header of that name, or add it.
    pub set: BTreeMap<String, String>,
    /// Add beside headers of that name.
    pub add: BTreeMap<String, String>,
    /// Remove every header of that name.
    pub remove: Vec<String>,
    /// Give every header of that name another, in place of those that had it.
    pub rename: BTreeMap<String, String>,
    /// Replace what a pattern matches in the values of a header.
    pub replace: BTreeMap<String, Replace>,
    /// A regular expression on the path, whose captures templates may use: `${path.1}`, `${path.name}`.
    pub path_pattern: Option<String>,
    /// Edits that are made if something holds, by what the edits before have left.
    pub when: Vec<When>,
}

/// What is replaced in a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// A regular expression; every match is replaced.
    pub pattern: String,
    /// What stands there instead; `$1` or `${name}` is what a group captured.
    pub with: String,
}

/// Edits that are made if something holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// What must hold.
    #[serde(rename = "if")]
    pub condition: Condition,
    /// Replace every header of that name, or add it.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Add beside headers of that name.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Remove every header of that name.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Give every header of that name another.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Replace what a pattern matches in the values of a header.
    #[serde(default)]
    pub replace: BTreeMap<String, Replace>,
}

/// What must hold for an edit; of several, all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// A header of the head that is edited; alone it has to be there.
    pub header: Option<String>,
    /// One of its values is exactly this.
    pub equals: Option<String>,
    /// One of its values matches this regular expression.
    pub matches: Option<String>,
    /// It is not there.
    pub absent: bool,
    /// For replies, one of these statuses: `404`, `5xx`.
    pub status: Vec<String>,
}

/// What is done to a head.
#[derive(Debug, Clone, Copy)]
pub struct Verbs<'a> {
    /// See [`Headers`].
    pub set: &'a BTreeMap<String, String>,
    /// See [`Headers`].
    pub add: &'a BTreeMap<String, String>,
    /// See [`Headers`].
    pub remove: &'a [String],
    /// See [`Headers`].
    pub rename: &'a BTreeMap<String, String>,
    /// See [`Headers`].
    pub replace: &'a BTreeMap<String, Replace>,
}

impl Headers {
    /// What is done to every head.
    pub fn verbs(&self) -> Verbs<'_> {
        let Self { set, add, remove, rename, replace, .. } = self;
        Verbs { set, add, remove, rename, replace }
    }

    /// Whether it is the same for every message, so that it can be made ready once.
    pub fn is_fixed(&self) -> bool {
        let has_places = self.set.values().chain(self.add.values()).any(|value| value.contains("${"));
        !has_places && self.rename.is_empty() && self.replace.is_empty() && self.when.is_empty()
    }
}

impl When {
    /// What is done if the condition holds.
    pub fn verbs(&self) -> Verbs<'_> {
        let Self { set, add, remove, rename, replace, .. } = self;
        Verbs { set, add, remove, rename, replace }
    }
}

/// Checks the edits under `path`.
pub(super) fn check(path: &[&str], headers: &Headers, side: Side, issues: &mut Issues) {
    let pattern = headers.path_pattern.as_deref();
    let pattern = pattern.and_then(|text| checked_pattern(&[path, &["path_pattern"]].concat(), text, issues));
    check_verbs(path, &headers.verbs(), side, pattern.as_ref(), issues);
    for (index, when) in headers.when.iter().enumerate() {
        let index = index.to_string();
        let path = [path, &["when", &index]].concat();
        check_condition(&[&path[..], &["if"]].concat(), &when.condition, side, issues);
        check_verbs(&path, &when.verbs(), side, pattern.as_ref(), issues);
    }
}

/// Reads a regular expression, or says what is wrong with it.
pub(super) fn checked_pattern(path: &[&str], text: &str, issues: &mut Issues) -> Option<Regex> {
    match Regex::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            // Its last line says what is wrong; those before draw it.
            let error = error.to_string();
            let said = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let help = "write a regular expression of Rust's `regex`, which has no look-around and no references back";
            issues.at(path, format!("this is no regular expression: {said}"), Some(help));
            None
        }
    }
}

fn check_condition(path: &[&str], condition: &Condition, side: Side, issues: &mut Issues) {
    let at = |key: &'static str| [path, &[key]].concat();
    let tests = [condition.equals.is_some(), condition.matches.is_some(), condition.absent];
    let tests = tests.into_iter().filter(|given| *given).count();
    match &condition.header {
        None if tests > 0 => issues.at_key(path, "which header?", Some("write `header: NAME` beside it")),
        None if condition.status.is_empty() => {
            issues.at(
                path,
                "nothing is asked here",
                Some("write `header: NAME`, or `status: [5xx]` for replies"),
            );
        }
        Some(name) if !is_name(name) => {
            issues.at(&at("header"), "this is no header name", Some("write one like `X-Team`"));
        }
        Some(_) if tests > 1 => {
            issues.at_key(
                path,
                "one header, one test",
                Some("leave all but one of `equals`, `matches`, `absent`"),
            );
        }
        None | Some(_) => {}
    }
    if let Some(pattern) = &condition.matches {
        checked_pattern(&at("matches"), pattern, issues);
    }
    for (index, status) in condition.status.iter().enumerate() {
        let index = index.to_string();
        let at = [path, &["status", &index]].concat();
        if side == Side::Request {
            issues.at(
                &at,
                "a request has no status",
                Some("leave it out, or write it under `response_headers`"),
            );
        } else if statuses(status).is_none() {
            issues.at(&at, "this is no status", Some("write one like `404`, or `5xx` for all that begin so"));
        }
    }
}

fn check_verbs(path: &[&str], verbs: &Verbs<'_>, side: Side, pattern: Option<&Regex>, issues: &mut Issues) {
    for (verb, values) in [("set", verbs.set), ("add", verbs.add)] {
        for (name, value) in values {
            let at = [path, &[verb, name]].concat();
            if let Some((message, help)) = header_problem(name, verb) {
                issues.at_key(&at, message, Some(help));
            }
            check_value(&at, value, side, pattern, issues);
        }
    }
    for (index, name) in verbs.remove.iter().enumerate() {
        let index = index.to_string();
        if let Some((message, help)) = header_problem(name, "remove") {
            issues.at(&[path, &["remove", &index]].concat(), message, Some(help));
        }
    }
    for (from, to) in verbs.rename {
        let at = [path, &["rename", from]].concat();
        if let Some((message, help)) = header_problem(from, "rename") {
            issues.at_key(&at, message, Some(help));
        }
        if let Some((message, help)) = header_problem(to, "rename") {
            issues.at(&at, message, Some(help));
        }
    }
    for (name, replace) in verbs.replace {
        let at = [path, &["replace", name]].concat();
        if let Some((message, help)) = header_problem(name, "replace") {
            issues.at_key(&at, message, Some(help));
        }
        checked_pattern(&[&at[..], &["pattern"]].concat(), &replace.pattern, issues);
        check_line(&[&at[..], &["with"]].concat(), &replace.with, issues);
    }
}

fn check_line(at: &[&str], value: &str, issues: &mut Issues) {
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') || value.trim() != value {
        let help = "write it on one line, without spaces at its ends";
        issues.at(at, "a header value has no line breaks, control characters or outer spaces", Some(help));
    }
}

/// Checks a value that may have places to fill in.
pub(super) fn check_value(
    at: &[&str],
    value: &str,
    side: Side,
    pattern: Option<&Regex>,
    issues: &mut Issues,
) {
    check_line(at, value, issues);
    match Template::parse(value, side) {
        Err(error) => issues.at(at, error.to_string(), Some(&error.help)),
        Ok(template) => {
            for capture in template.captures() {
                if !pattern.is_some_and(|pattern| has_capture(pattern, capture)) {
                    let help =
                        "write a `path_pattern` beside `set` that captures it, like `^/users/(?<id>[0-9]+)`";
                    issues.at(at, format!("nothing captures `{capture}` of the path"), Some(help));
                }
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token)
}

/// What is wrong with a header's name for this verb.
pub(super) fn header_problem(name: &str, verb: &str) -> Option<(&'static str, &'static str)> {
    if !is_name(name) {
        return Some(("this is no header name", "write letters, digits and `-`, like `X-Team`"));
    }
    // CGI-like apps cannot tell `Content_Length` from the real one.
    let known = Name::of(name.replace('_', "-").as_bytes());
    let frames = known.is_hop_by_hop() || matches!(known, Name::ContentLength | Name::Trailer | Name::Expect);
    if frames {
        return Some((
            "this header says where messages end or whom they reach: only the proxy writes it",
            "leave it out",
        ));
    }
    if known == Name::Host && verb != "set" {
        return Some(("a request has exactly one Host", "use `set` to replace it"));
    }
    None
}
