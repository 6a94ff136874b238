//! Pages and maintenance, as written.

use crate::signify::{Key, Page};
use groove_common::config::{Duration, InputFile, Issues};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Files by the failure that they are shown for: `404`, `5xx`, `H12` or `maintenance`.
pub type Pages = BTreeMap<String, InputFile>;

/// An app, or a route of it, that is closed for a while.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Maintenance {
    /// Whether it is closed.
    pub enabled: bool,
    /// Networks whose clients are served all the same.
    #[schemars(with = "Vec<groove_common::config::Network>")]
    pub allow: Vec<IpNet>,
    /// The page that is shown; the app's `pages` if left out.
    pub page: Option<InputFile>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

/// Checks the keys and the files of `pages`.
pub(super) fn pages(path: &[&str], pages: &Pages, issues: &mut Issues) {
    for (key, file) in pages {
        let at = [path, &["pages", key]].concat();
        if Key::parse(key).is_none() {
            let help = "write a status from 400 on like `404`, a class like `5xx`, a code like `H12`, or `maintenance`";
            issues.at_key(&at, format!("`{key}` names no failure"), Some(help));
        }
        page(&at, file, issues);
    }
}

/// Checks `maintenance`.
pub(super) fn maintenance(path: &[&str], maintenance: Option<&Maintenance>, issues: &mut Issues) {
    if let Some(file) = maintenance.and_then(|it| it.page.as_ref()) {
        page(&[path, &["maintenance", "page"]].concat(), file, issues);
    }
}

fn page(at: &[&str], file: &InputFile, issues: &mut Issues) {
    // One that is not there has been told of already.
    if !file.is_file() {
        return;
    }
    if let Err(problem) = Page::read(file) {
        let help = "see the variables of pages in docs/http.md; a page is a small file of UTF-8 text";
        issues.at(at, problem, Some(help));
    }
}
