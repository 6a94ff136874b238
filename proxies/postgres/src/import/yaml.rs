//! The text that is written: YAML with comments, which no serializer writes, and secrets, which ours masks.

use std::fmt::Display;

/// A text as a value or a key, in quotes unless it is a plain word in every YAML.
pub(super) fn scalar(text: &str) -> String {
    const WORDS_WITH_A_MEANING: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && !WORDS_WITH_A_MEANING.iter().any(|taken| taken.eq_ignore_ascii_case(text));
    if word {
        return text.to_owned();
    }
    // What JSON writes between quotes means the same in YAML.
    serde_json::Value::from(text).to_string()
}

/// Lines, further in where they are below others.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// A line, so many levels in.
    pub(super) fn line(&mut self, level: usize, line: impl Display) {
        let line = line.to_string();
        self.text.push_str(&"  ".repeat(level));
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// `key: value`.
    pub(super) fn pair(&mut self, level: usize, key: &str, value: impl Display) {
        self.line(level, format_args!("{key}: {value}"));
    }

    /// A comment. What ends a line in YAML must not end it here.
    pub(super) fn comment(&mut self, level: usize, text: impl Display) {
        let text: String = text.to_string().chars().map(|c| if is_break(c) { ' ' } else { c }).collect();
        self.line(level, format_args!("# {text}"));
    }

    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// Adds another page's lines.
    pub(super) fn append(&mut self, other: &Page) {
        self.text.push_str(&other.text);
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Control characters are not allowed in YAML at all.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}
