//! What changed between two configurations, for the log of a reload.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::secret::{marked, unmarked};

/// One change. Its values are masked where they are secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The place, as `clusters.main.endpoints.0.address`.
    pub path: String,
    /// What was there before, unless it is new.
    pub old: Option<Value>,
    /// What is there now, unless it is gone.
    pub new: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if old == new => write!(f, "{}: a new secret", self.path),
            (Some(old), Some(new)) => write!(f, "{}: {old} -> {new}", self.path),
            (None, Some(new)) => write!(f, "{}: added {new}", self.path),
            (Some(old), None) => write!(f, "{}: removed {old}", self.path),
            (None, None) => f.write_str(&self.path),
        }
    }
}

/// Every change from `old` to `new`, in the order of their places. A secret that changed is said to have
/// changed, and no more.
pub fn difference(old: &impl Serialize, new: &impl Serialize) -> Vec<Change> {
    let (old, new) = marked(|| (serde_json::to_value(old), serde_json::to_value(new)));
    let mut changes = Vec::new();
    if let (Ok(old), Ok(new)) = (old, new) {
        compare("", Some(&old), Some(&new), &mut changes);
    }
    for change in &mut changes {
        change.old.iter_mut().chain(&mut change.new).for_each(unmarked);
    }
    changes
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                compare(&below(key), old.get(key), new.get(key), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(&below(&index.to_string()), old.get(index), new.get(index), changes);
            }
        }
        _ => changes.push(Change { path: path.to_owned(), old: old.cloned(), new: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Secret;

    #[test]
    fn names_what_changed_came_and_went() {
        let old = json!({"a": 1, "list": [1, 2], "gone": true, "same": {"x": "y"}});
        let new = json!({"a": 2, "list": [1], "same": {"x": "y"}, "came": {"z": 1}});
        let shown: Vec<_> = difference(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a: 1 -> 2", "gone: removed true", "list.1: removed 2", "came: added {\"z\":1}"]);
        assert_eq!(difference(&new, &new), []);
    }

    #[test]
    fn a_secret_that_changed_is_named_and_not_shown() {
        let (old, new) = (json_of("hunter2"), json_of("hunter3"));
        let changes = difference(&old, &new);
        assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["password: a new secret"]);
        assert_eq!(difference(&old, &json_of("hunter2")), []);
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"password":"***"}"#);
    }

    fn json_of(secret: &str) -> std::collections::BTreeMap<&'static str, Secret> {
        [("password", Secret::new(secret))].into()
    }
}
