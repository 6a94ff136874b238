//! How errors are said: what was found, what was expected, and what to write instead.

use std::ops::Range;

use super::report::Problem;
use super::shape::Shape;
use super::suggest::{choices, nearest};
use super::tree::{Entry, Meaning, Node, Scalar, Value};

/// A value of the wrong kind.
pub(super) fn mismatch(node: &Node, shape: Shape<'_>, place: Range<usize>) -> Problem {
    let found = match &node.value {
        Value::Refused => "what cannot be read".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
        Value::Scalar(scalar) => match scalar.meaning() {
            Meaning::Null => "nothing".to_owned(),
            Meaning::Bool(_) if shape.is_secret() => "a boolean".to_owned(),
            Meaning::Bool(_) => format!("the boolean `{}`", scalar.text),
            Meaning::Unsigned(_) | Meaning::Signed(_) | Meaning::Float(_) => {
                format!("the number `{}`", scalar.text)
            }
            Meaning::Text => format!("the text `{}`", shortened(&scalar.text)),
        },
    };
    let problem = Problem::new(place, format!("expected {}, found {found}", shape.describe()));
    match mismatch_help(node, shape) {
        Some(help) => problem.help(help),
        None => problem,
    }
}

fn mismatch_help(node: &Node, shape: Shape<'_>) -> Option<String> {
    let scalar = match &node.value {
        Value::Scalar(scalar) => scalar,
        Value::Map(_) if shape.wants("array") => {
            return Some("begin each item of the list with `- `".to_owned());
        }
        Value::List(_) if shape.wants("object") => {
            return Some("write `key: value` instead of the list".to_owned());
        }
        Value::Map(_) | Value::List(_) | Value::Refused => return None,
    };
    let text = scalar.text.as_str();
    if scalar.meaning() == Meaning::Null {
        return Some("write a value, or remove the key".to_owned());
    }
    if shape.wants("boolean") {
        return match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" | "1" => Some("write `true`, without quotes".to_owned()),
            "no" | "off" | "n" | "false" | "0" => Some("write `false`, without quotes".to_owned()),
            _ => Some("write `true` or `false`".to_owned()),
        };
    }
    if shape.wants("string") {
        return Some(match shape.is_secret() {
            true => "write it in quotes".to_owned(),
            false => format!("write it in quotes: `\"{text}\"`"),
        });
    }
    if shape.wants("integer") || shape.wants("number") {
        return Some(number_help(scalar));
    }
    if shape.wants("array") {
        return Some(format!("write a list: `[{}]`", shortened(text)));
    }
    let mapping =
        std::iter::once(shape).chain(shape.branches()).find(|branch| branch.keys().next().is_some())?;
    let key = mapping.required().chain(mapping.keys()).next()?;
    Some(format!("write a mapping, like `{{{key}: ...}}`"))
}

fn number_help(scalar: &Scalar) -> String {
    let unquoted = Scalar { text: scalar.text.replace('_', ""), plain: true };
    let decimal = unquoted.text.trim_start_matches('0');
    if matches!(unquoted.meaning(), Meaning::Float(_)) {
        "write a whole number".to_owned()
    } else if unquoted.meaning() != Meaning::Text {
        format!("write `{}`", unquoted.text)
    } else if !decimal.is_empty() && decimal.bytes().all(|b| b.is_ascii_digit()) {
        format!("write `{decimal}`, or `0o{decimal}` if it is octal")
    } else {
        "write a number, in digits".to_owned()
    }
}

/// A number beyond the bounds of its place.
pub(super) fn out_of_range(scalar: &Scalar, shape: Shape<'_>, place: &Range<usize>) -> Option<Problem> {
    // The schema gives no upper bound for the wider integers: their type does.
    let widest = match shape.format() {
        Some("uint32") => Some(f64::from(u32::MAX)),
        Some("int32") => Some(f64::from(i32::MAX)),
        _ => None,
    };
    let least =
        shape.number("minimum").or_else(|| (shape.format() == Some("int32")).then_some(f64::from(i32::MIN)));
    let most = shape.number("maximum").or(widest);
    // Integers past 2^53 lose digits here, but no bound is as close to one of them.
    let value: f64 = match scalar.meaning() {
        Meaning::Float(value) => value,
        Meaning::Unsigned(value) => value as f64,
        Meaning::Signed(value) => value as f64,
        Meaning::Null | Meaning::Bool(_) | Meaning::Text => return None,
    };
    let below = least.is_some_and(|least| value < least);
    if !below && !most.is_some_and(|most| value > most) {
        return None;
    }
    let problem = Problem::new(
        place.clone(),
        format!("`{}` is too {}", scalar.text, if below { "small" } else { "large" }),
    );
    Some(problem.help(match (least, most) {
        (Some(least), Some(most)) if shape.number("maximum").is_some() || !below => {
            format!("write {least} to {most}")
        }
        (Some(least), _) => format!("write {least} or more"),
        (None, Some(most)) => format!("write {most} or less"),
        (None, None) => "write another number".to_owned(),
    }))
}

/// A word that is none of the few that are allowed.
pub(super) fn unknown_word(place: Range<usize>, text: &str, words: &[&str]) -> Problem {
    let help = match nearest(text, words.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("write {}", choices(words.iter().copied())),
    };
    Problem::new(place, format!("unknown value `{}`", shortened(text))).help(help)
}

/// A key that nothing reads.
pub(super) fn unknown_key(entry: &Entry, noun: &str, keys: &[&str]) -> Problem {
    let help = match nearest(&entry.key, keys.iter().copied()) {
        Some(key) => format!("did you mean `{key}`?"),
        None if keys.is_empty() => "remove it".to_owned(),
        None => format!("what can stand here: {}", choices(keys.iter().copied())),
    };
    Problem::new(entry.key_span.clone(), format!("unknown {noun} `{}`", shortened(&entry.key))).help(help)
}

/// What is said of a text in a message, in one line.
fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None if line.len() < text.len() => format!("{line}..."),
        None => line.to_owned(),
    }
}
