//! `compression`: which replies are compressed, and how, as written.

use groove_common::config::{Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is compressed where nothing else is said: text, and what is text by another name.
const TYPES: [&str; 14] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/ld+json",
    "application/problem+json",
    "application/manifest+json",
    "application/x-ndjson",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
];

/// Replies are compressed for clients that can read them so (RFC 9110, 12.5.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// Whether it is done: `false` for a route of an app that does.
    pub enabled: bool,
    /// Codings, the best first. Of those that a client likes equally the first is taken.
    #[schemars(length(min = 1, max = 3))]
    pub codings: Vec<Coding>,
    /// Media types, like `application/json` or `text/*`.
    #[schemars(length(min = 1))]
    pub types: Vec<String>,
    /// Shorter replies stay as they are, where their length is known before.
    pub min_length: Size,
    /// How hard gzip tries.
    #[schemars(range(min = 1, max = 9))]
    pub gzip: u32,
    /// How hard Brotli tries. More takes too long for what is made while somebody waits.
    #[schemars(range(max = 6))]
    pub br: u32,
    /// How hard Zstandard tries.
    #[schemars(range(min = 1, max = 9))]
    pub zstd: u32,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// Brotli, RFC 7932.
    Br,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            enabled: true,
            codings: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            types: TYPES.map(str::to_owned).into(),
            min_length: Size::kib(1),
            gzip: 5,
            br: 4,
            zstd: 3,
        }
    }
}

/// Checks the rules under `path`.
pub(super) fn check(path: &[&str], rules: &Compression, issues: &mut Issues) {
    super::body::types(path, &rules.types, issues);
    for (index, coding) in rules.codings.iter().enumerate() {
        if rules.codings.iter().take(index).any(|before| before == coding) {
            let index = index.to_string();
            let help = "write each coding once";
            issues.at(&[path, &["codings", &index]].concat(), "this coding is there already", Some(help));
        }
    }
}
