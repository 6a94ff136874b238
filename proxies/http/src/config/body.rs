//! What request bodies an app or a route takes, as written.

use groove_common::config::{Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What request bodies are taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BodyRules {
    /// The longest body; never more than `limits.body`.
    pub max: Option<Size>,
    /// Media types, like `application/json` or `image/*`; any if left out.
    pub types: Vec<String>,
}

/// Checks the rules under `path`.
pub(super) fn check(path: &[&str], rules: &BodyRules, issues: &mut Issues) {
    types(path, &rules.types, issues);
}

/// Checks `types` under `path`.
pub(super) fn types(path: &[&str], types: &[String], issues: &mut Issues) {
    for (index, text) in types.iter().enumerate() {
        let index = index.to_string();
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        let fits = text.split_once('/').is_some_and(|(kind, of)| is_word(kind) && (of == "*" || is_word(of)));
        if !fits {
            let help = "write one like `application/json`, or `image/*` for all of a kind";
            issues.at(&[path, &["types", &index]].concat(), "this is no media type", Some(help));
        }
    }
}
