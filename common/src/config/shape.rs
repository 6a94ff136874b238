//! A JSON Schema as the walk reads it: one place of it, references followed.
//!
//! Only what schemars derives from our types is understood: `type`, `properties`, `required`,
//! `additionalProperties`, `items`, `enum`, `const`, `anyOf`, `oneOf`, bounds and `format`.

use serde_json::Value as Json;

use super::formats;
use super::tree::{Entry, Meaning, Node, Scalar, Value};

/// A place in a schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'s> {
    root: &'s Json,
    /// Where we are, with what a reference there is annotated with.
    written: &'s Json,
    /// The same with references followed.
    here: &'s Json,
}

impl<'s> Shape<'s> {
    pub(super) fn root(schema: &'s Json) -> Self {
        Self { root: schema, written: schema, here: schema }
    }

    fn at(self, written: &'s Json) -> Self {
        let mut here = written;
        // A schema's references form no circle: a type that holds itself does so through a property.
        while let Some(name) = here.get("$ref").and_then(Json::as_str) {
            match self.root.pointer(name.trim_start_matches('#')) {
                Some(target) => here = target,
                None => break,
            }
        }
        Self { written, here, ..self }
    }

    fn get(self, keyword: &str) -> Option<&'s Json> {
        self.written.get(keyword).or_else(|| self.here.get(keyword))
    }

    fn text(self, keyword: &str) -> Option<&'s str> {
        self.get(keyword).and_then(Json::as_str)
    }

    pub(super) fn format(self) -> Option<&'s str> {
        self.text("format")
    }

    pub(super) fn is_secret(self) -> bool {
        self.format() == Some("secret")
            || self.branches().iter().any(|branch| branch.format() == Some("secret"))
    }

    /// Every key, anywhere in the schema, under which a secret stands, or a list or mapping of them.
    pub(super) fn secret_keys(self) -> Vec<&'s str> {
        let holds = |shape: Self| {
            let others = shape.other_values().ok().flatten();
            shape.is_secret() || shape.items().or(others).is_some_and(Self::is_secret)
        };
        let definitions = self.root.get("$defs").and_then(Json::as_object);
        let schemas = definitions.into_iter().flat_map(|all| all.values()).chain([self.root]);
        let shapes = schemas.map(|schema| self.at(schema));
        shapes
            .flat_map(|shape| shape.keys().filter(move |key| shape.property(key).is_some_and(holds)))
            .collect()
    }

    /// The first sentence of what the type says of itself.
    pub(super) fn summary(self) -> Option<&'s str> {
        let text = self.text("description")?.lines().next()?;
        Some(text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.'))
    }

    /// The word for an unknown key here, if the type has a better one than "key".
    pub(super) fn key_noun(self) -> &'s str {
        self.text("x-key").unwrap_or("key")
    }

    /// The alternatives, if there are any.
    pub(super) fn branches(self) -> Vec<Self> {
        let list = self.get("anyOf").or_else(|| self.get("oneOf")).and_then(Json::as_array);
        list.into_iter().flatten().map(|branch| self.at(branch)).collect()
    }

    /// The texts that are allowed, if they are few.
    pub(super) fn words(self) -> Option<Vec<&'s str>> {
        if let Some(word) = self.text("const") {
            return Some(vec![word]);
        }
        self.get("enum").and_then(Json::as_array).map(|words| words.iter().filter_map(Json::as_str).collect())
    }

    pub(super) fn number(self, keyword: &str) -> Option<f64> {
        self.get(keyword).and_then(Json::as_f64)
    }

    pub(super) fn count(self, keyword: &str) -> Option<usize> {
        self.get(keyword).and_then(Json::as_u64).and_then(|count| usize::try_from(count).ok())
    }

    pub(super) fn is_unique(self) -> bool {
        self.get("uniqueItems") == Some(&Json::Bool(true))
    }

    pub(super) fn items(self) -> Option<Self> {
        self.get("items").map(|items| self.at(items))
    }

    pub(super) fn property(self, key: &str) -> Option<Self> {
        self.get("properties").and_then(|all| all.get(key)).map(|property| self.at(property))
    }

    pub(super) fn keys(self) -> impl Iterator<Item = &'s str> {
        self.get("properties").and_then(Json::as_object).into_iter().flatten().map(|(key, _)| key.as_str())
    }

    pub(super) fn required(self) -> impl Iterator<Item = &'s str> {
        self.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
    }

    /// What stands under a key that is no property: nothing may, or what its shape is. A type that forgot to
    /// say so (`deny_unknown_fields`) has no other keys either.
    pub(super) fn other_values(self) -> Result<Option<Self>, ()> {
        match self.get("additionalProperties") {
            Some(Json::Bool(false)) => Err(()),
            None if self.get("properties").is_some() => Err(()),
            Some(Json::Bool(true)) | None => Ok(None),
            Some(schema) => Ok(Some(self.at(schema))),
        }
    }

    /// What keys that are no properties must be.
    pub(super) fn other_keys(self) -> Option<Self> {
        self.get("propertyNames").map(|schema| self.at(schema))
    }

    fn types(self) -> Vec<&'s str> {
        match self.get("type") {
            Some(Json::String(one)) => vec![one.as_str()],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ if self.words().is_some() => vec!["string"],
            _ => Vec::new(),
        }
    }

    pub(super) fn wants(self, kind: &str) -> bool {
        let branches = self.branches();
        if branches.is_empty() {
            self.types().contains(&kind)
        } else {
            branches.iter().any(|branch| branch.wants(kind))
        }
    }

    /// Whether a value of this kind may stand here, whatever it is.
    pub(super) fn admits(self, node: &Node) -> bool {
        let branches = self.branches();
        if !branches.is_empty() {
            return branches.iter().any(|branch| branch.admits(node));
        }
        let types = self.types();
        let kinds: &[&str] = match &node.value {
            Value::Refused => return true,
            Value::List(_) => &["array"],
            Value::Map(_) => &["object"],
            Value::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => &["null"],
                Meaning::Bool(_) => &["boolean"],
                Meaning::Unsigned(_) | Meaning::Signed(_) => &["integer", "number", "string"],
                Meaning::Float(_) => &["number", "string"],
                Meaning::Text => &["string"],
            },
        };
        types.is_empty() || kinds.iter().any(|kind| types.contains(kind))
    }

    /// What may stand here, in words: "a list or a mapping".
    pub(super) fn describe(self) -> String {
        let mut words = Vec::new();
        self.describe_into(&mut words);
        match words.split_last() {
            None => "a value".to_owned(),
            Some((only, [])) => only.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
        }
    }

    fn describe_into(self, words: &mut Vec<String>) {
        for branch in self.branches() {
            branch.describe_into(words);
        }
        if let Some(allowed) = self.words() {
            words.extend(allowed.iter().map(|word| format!("`{word}`")));
            return;
        }
        for kind in self.types() {
            let word = match kind {
                "object" => "a mapping",
                "array" => "a list",
                "string" => self.format().and_then(formats::noun).unwrap_or("a text"),
                "integer" => "a whole number",
                "number" => "a number",
                "boolean" => "`true` or `false`",
                _ => continue,
            };
            if !words.iter().any(|have| have == word) {
                words.push(word.to_owned());
            }
        }
    }

    /// A harmless value of this shape, for where the real one is wrong.
    pub(super) fn stand_in(self) -> Option<Value> {
        if let Some(branch) = self.branches().into_iter().find_map(Self::stand_in) {
            return Some(branch);
        }
        if let Some(word) = self.words().and_then(|words| words.first().copied()) {
            return Some(Value::Scalar(Scalar::text(word)));
        }
        let plain = |text: String| Some(Value::Scalar(Scalar { text, plain: true }));
        match *self.types().first()? {
            "string" => Some(Value::Scalar(Scalar::text(formats::stand_in(self.format())))),
            "integer" | "number" => plain(self.number("minimum").unwrap_or(0.0).max(1.0).to_string()),
            "boolean" => plain("false".to_owned()),
            "array" => Some(Value::List(Vec::new())),
            "object" => self.required().map(|key| self.entry(key)).collect::<Option<_>>().map(Value::Map),
            _ => None,
        }
    }

    /// A key with a stand-in.
    pub(super) fn entry(self, key: &str) -> Option<Entry> {
        let value = Node { span: 0..0, value: self.property(key)?.stand_in()? };
        Some(Entry { key: key.to_owned(), key_span: 0..0, value })
    }
}
