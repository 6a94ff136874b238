//! Secrets: from the file itself, the environment, or a file of their own; never printed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::files::read;

/// What `Debug`, `Display` and `Serialize` show of every secret.
pub(super) const MASK: &str = "***";

/// A password, a token or a key.
///
/// Written as a plain text, as `{env: NAME}` or as `{file: path}`, whose last line break is left out.
#[derive(Clone)]
pub struct Secret {
    value: SecretString,
    file: Option<PathBuf>,
}

impl Secret {
    /// A secret that is known already.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: SecretString::from(value.into()), file: None }
    }

    /// The secret itself. Never log what this returns.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// The file it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads `{env: NAME}`.
    pub(super) fn from_env(name: &str) -> Result<Self, String> {
        match std::env::var(name) {
            Ok(value) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
            Ok(value) => Ok(Self::new(value)),
            Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {name} is not UTF-8"))
            }
        }
    }

    /// Reads `{file: path}`.
    pub(super) fn from_file(path: &Path) -> Result<Self, String> {
        let text = String::from_utf8(read(path)?).map_err(|_| format!("{} is not UTF-8", path.display()))?;
        let value = text.strip_suffix('\n').unwrap_or(&text);
        let value = value.strip_suffix('\r').unwrap_or(value);
        if value.is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        Ok(Self { value: SecretString::from(value), file: Some(path.to_owned()) })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match MARKS.with_borrow(|marks| marks.as_ref().map(|marks| marks.hash_one(self.expose()))) {
            None => serializer.serialize_str(MASK),
            Some(mark) => serializer.collect_str(&format_args!("{MASK} {mark:016x}")),
        }
    }
}

thread_local! {
    /// Set while secrets are compared: see [`marked`].
    static MARKS: RefCell<Option<RandomState>> = const { RefCell::new(None) };
}

/// Runs `compare` with every secret serialized as the mask and a mark, so that two that differ do not look the
/// same. The marks hold for this call only; what is shown of a difference goes through [`unmarked`].
pub(super) fn marked<T>(compare: impl FnOnce() -> T) -> T {
    /// Takes the marks away again, a panic included.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            MARKS.set(None);
        }
    }
    MARKS.set(Some(RandomState::new()));
    let _reset = Reset;
    compare()
}

/// Takes the marks out of a value.
pub(super) fn unmarked(value: &mut Value) {
    match value {
        Value::String(text) if text.strip_prefix(MASK).is_some_and(|mark| mark.starts_with(' ')) => {
            MASK.clone_into(text);
        }
        Value::Array(items) => items.iter_mut().for_each(unmarked),
        Value::Object(entries) => entries.values_mut().for_each(unmarked),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, `{env: NAME}` or `{file: path}`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let Some((key, value)) = map.next_entry::<String, String>()? else {
            return Err(A::Error::custom("a secret is a text, `{env: NAME}` or `{file: path}`"));
        };
        match key.as_str() {
            "env" => Secret::from_env(&value).map_err(A::Error::custom),
            "file" => Secret::from_file(Path::new(&value)).map_err(A::Error::custom),
            _ => Err(A::Error::unknown_field(&key, &["env", "file"])),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A secret: a text, or where it is to be read.",
            "format": "secret",
            "anyOf": [
                { "type": "string", "minLength": 1 },
                {
                    "type": "object",
                    "properties": { "env": { "type": "string", "format": "secret-env" } },
                    "required": ["env"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": { "file": { "type": "string", "format": "secret-file" } },
                    "required": ["file"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
