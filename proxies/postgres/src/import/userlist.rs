//! `auth_file`: names and secrets, one pair a line, both in double quotes.

use std::path::Path;
use std::rc::Rc;

use super::ini::{Place, unquoted};
use super::problems::Problems;
use crate::auth::Stored;

/// Someone of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: String,
    /// As it stands there: plain, `md5…`, a SCRAM verifier, or empty.
    pub(super) secret: String,
}

/// Reads the file's text. Of a name that comes twice the last counts, as in PgBouncer.
pub(super) fn read(path: &Path, text: &str, problems: &mut Problems) -> Vec<Known> {
    let file: Rc<str> = path.display().to_string().into();
    let mut known: Vec<Known> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let place = Place::new(&file, index + 1);
        let Some((name, secret)) = pair(line) else {
            problems.at(&place, "expected `\"name\" \"secret\"`");
            continue;
        };
        if let Err(error) = Stored::read(&secret) {
            problems.at(&place, format!("the secret of `{name}` {error}"));
        }
        match known.iter_mut().find(|user| user.name == name) {
            Some(user) => user.secret = secret,
            None => known.push(Known { name, secret }),
        }
    }
    known
}

/// What comes after the second quote pair is not read, by PgBouncer neither.
fn pair(line: &str) -> Option<(String, String)> {
    let (name, rest) = unquoted(line.strip_prefix('"')?, '"')?;
    let (secret, _) = unquoted(rest.trim_start().strip_prefix('"')?, '"')?;
    (!name.is_empty()).then_some((name, secret))
}
