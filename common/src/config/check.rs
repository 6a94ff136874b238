//! The walk: a tree against the JSON Schema that its own types derive.
//!
//! One schema serves editors and these checks, so they cannot disagree. The walk does more than a validator:
//!
//! * it finds every error, says what to write instead, and guesses what an unknown key was meant to be;
//! * it makes of each scalar what its type wants (`0123` where a text is wanted stays those four characters);
//! * it takes paths from the folder of the configuration, and notes which files and which spans are secret;
//! * it puts a harmless stand-in where something was wrong, so that the semantic checks can still run on the
//!   rest, and remembers where, so that nothing is said of a stand-in.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::formats::{self, FileKind};
use super::report::Problem;
use super::secret::Secret;
use super::shape::Shape;
use super::suggest::{choices, nearest};
use super::tree::{Entry, Meaning, Node, Scalar, Value};
use super::wording::{mismatch, out_of_range, unknown_key, unknown_word};

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Spans that may not be shown.
    pub(super) secrets: Vec<Range<usize>>,
    /// Files to watch.
    pub(super) files: Vec<PathBuf>,
    /// Where stand-ins are.
    pub(super) repaired: Vec<Vec<String>>,
}

/// A document's own formats: see [`super::Document::format`].
pub(super) type OwnFormats = fn(&str, &str) -> Result<(), String>;

/// Walks `root`, repairing it. `folder` is where relative paths begin.
pub(super) fn check(
    text: &str,
    root: &mut Node,
    shape: Shape<'_>,
    folder: &Path,
    own: OwnFormats,
) -> Findings {
    let mut walk = Walk { text, folder, own, path: Vec::new(), found: Findings::default() };
    walk.node(root, shape, &(0..0));
    walk.found
}

struct Walk<'a> {
    text: &'a str,
    folder: &'a Path,
    own: OwnFormats,
    path: Vec<String>,
    found: Findings,
}

impl Walk<'_> {
    /// `label` is the key of the node: what is said of a long collection is shown there.
    fn node(&mut self, node: &mut Node, shape: Shape<'_>, label: &Range<usize>) {
        if shape.is_secret() && node.value != Value::Refused {
            return self.secret(node, shape, label);
        }
        let sound = match self.branch(node, shape, label) {
            Some(branch) => self.typed(node, branch, label),
            None => false,
        };
        if !sound {
            if let Some(value) = shape.stand_in() {
                node.value = value;
            }
            self.found.repaired.push(self.path.clone());
        }
    }

    /// What is wrong here is never shown.
    fn secret(&mut self, node: &mut Node, shape: Shape<'_>, label: &Range<usize>) {
        if !matches!(node.value, Value::Map(_)) {
            self.found.secrets.push(node.span.clone());
        }
        let before = self.found.problems.len();
        if let Some(branch) = self.branch(node, shape, label) {
            self.typed(node, branch, label);
        }
        if self.found.problems.len() > before {
            // Not what it was read as: a half-written source would be read when it is deserialized.
            node.value = Value::Scalar(Scalar::text("stand-in"));
            self.found.repaired.push(self.path.clone());
        }
    }

    /// Which of the alternatives the node is meant to be; `None` if it is none of them, which is said.
    fn branch<'s>(&mut self, node: &Node, shape: Shape<'s>, label: &Range<usize>) -> Option<Shape<'s>> {
        if node.value == Value::Refused {
            return None;
        }
        if !shape.admits(node) {
            let problem = mismatch(node, shape, self.place(node, label));
            self.found.problems.push(problem);
            return None;
        }
        let fitting: Vec<_> = shape.branches().into_iter().filter(|branch| branch.admits(node)).collect();
        match (&node.value, fitting.as_slice()) {
            (_, []) => Some(shape),
            (_, [only]) => self.branch(node, *only, label),
            (Value::Scalar(scalar), many) => self.word(node, scalar, many),
            (Value::Map(entries), many) => self.mapping(node, entries, shape, many, label),
            (Value::List(_) | Value::Refused, many) => many.first().copied(),
        }
    }

    /// A scalar among several alternatives: one of a few words, or the first that takes any.
    fn word<'s>(&mut self, node: &Node, scalar: &Scalar, many: &[Shape<'s>]) -> Option<Shape<'s>> {
        let takes =
            |branch: &&Shape<'s>| branch.words().is_none_or(|words| words.contains(&scalar.text.as_str()));
        let found = many.iter().find(takes).copied();
        if found.is_none() {
            let words = many.iter().filter_map(|branch| branch.words()).flatten().collect::<Vec<_>>();
            self.found.problems.push(unknown_word(node.span.clone(), &scalar.text, &words));
        }
        found
    }

    /// A mapping among several alternatives: its first key that one of them knows decides.
    fn mapping<'s>(
        &mut self,
        node: &Node,
        entries: &[Entry],
        shape: Shape<'s>,
        many: &[Shape<'s>],
        label: &Range<usize>,
    ) -> Option<Shape<'s>> {
        if let Some(found) = tagged(entries, many) {
            return Some(found);
        }
        let knows = |entry: &Entry| many.iter().find(|branch| branch.property(&entry.key).is_some());
        if let Some(found) = entries.iter().find_map(knows) {
            return Some(*found);
        }
        let keys: Vec<_> = many.iter().flat_map(|branch| branch.keys()).collect();
        let problem = match entries.first() {
            Some(entry) => unknown_key(entry, shape.key_noun(), &keys),
            None => Problem::new(self.place(node, label), "nothing is written here")
                .help(format!("write {}", choices(keys.iter().copied()))),
        };
        self.found.problems.push(problem);
        None
    }

    /// A node whose kind is right. `false` if what is left of it cannot be used.
    fn typed(&mut self, node: &mut Node, shape: Shape<'_>, label: &Range<usize>) -> bool {
        let place = self.place(node, label);
        match &mut node.value {
            Value::List(items) => {
                self.list(items, shape, place);
                true
            }
            Value::Map(entries) => self.map(entries, shape, place),
            Value::Refused => false,
            Value::Scalar(scalar) => {
                let problem = match scalar.meaning() {
                    Meaning::Null | Meaning::Bool(_) => None,
                    _ if shape.wants("string") => {
                        scalar.plain = false;
                        self.text(scalar, shape, &place)
                    }
                    Meaning::Unsigned(_) | Meaning::Signed(_) | Meaning::Float(_) => {
                        out_of_range(scalar, shape, &place)
                    }
                    Meaning::Text => None,
                };
                let sound = problem.is_none();
                self.found.problems.extend(problem);
                sound
            }
        }
    }

    fn text(&mut self, scalar: &mut Scalar, shape: Shape<'_>, place: &Range<usize>) -> Option<Problem> {
        let text = scalar.text.as_str();
        if let Some(words) = shape.words() {
            return (!words.contains(&text)).then(|| unknown_word(place.clone(), text, &words));
        }
        let characters = text.chars().count();
        if let Some(least) = shape.count("minLength").filter(|least| characters < *least) {
            let message =
                if characters == 0 { "this is empty".to_owned() } else { "this is too short".to_owned() };
            return Some(
                Problem::new(place.clone(), message).help(format!("write {least} or more characters")),
            );
        }
        if let Some(most) = shape.count("maxLength").filter(|most| characters > *most) {
            let problem = Problem::new(place.clone(), format!("this is {characters} characters long"));
            return Some(problem.help(format!("write {most} or fewer")));
        }
        let format = shape.format()?;
        if let Some(kind) = FileKind::of(format) {
            return self.file(scalar, kind, place);
        }
        if format == "secret-env" {
            let help = "set it before the start, or write `{file: PATH}`";
            return Secret::from_env(text)
                .err()
                .map(|message| Problem::new(place.clone(), message).help(help));
        }
        let builtin = formats::check(format, text);
        let outcome = builtin.and_then(|()| (self.own)(format, text));
        let noun = formats::noun(format)
            .map_or_else(|| format!("a good {}", format.replace('-', " ")), str::to_owned);
        outcome.err().map(|help| Problem::new(place.clone(), format!("`{text}` is not {noun}")).help(help))
    }

    /// Makes the path absolute or relative to where we run, and tests what is there.
    fn file(&mut self, scalar: &mut Scalar, kind: FileKind, place: &Range<usize>) -> Option<Problem> {
        let path = self.folder.join(&scalar.text);
        let outcome = kind.check(&path);
        scalar.text = path.to_string_lossy().into_owned();
        if kind != FileKind::Endpoints {
            self.found.files.push(path);
        }
        let message = outcome.err()?;
        let help =
            "give the path of a file that is there and readable; a relative one starts at this file's folder";
        Some(Problem::new(place.clone(), message).help(help))
    }

    fn list(&mut self, items: &mut [Node], shape: Shape<'_>, place: Range<usize>) {
        let least = shape.count("minItems").unwrap_or(0);
        if items.len() < least {
            let message = if items.is_empty() { "this list is empty" } else { "this list is too short" };
            self.problem(Problem::new(place, message).help(format!("write {least} or more")));
        } else if let Some(most) = shape.count("maxItems").filter(|most| items.len() > *most) {
            self.problem(Problem::new(place, "this list is too long").help(format!("write {most} or fewer")));
        }
        let Some(each) = shape.items() else { return };
        let mut seen = HashSet::new();
        for (index, item) in items.iter_mut().enumerate() {
            if let Value::Scalar(scalar) = &item.value
                && shape.is_unique()
                && !seen.insert(scalar.text.clone())
            {
                let problem = Problem::new(item.span.clone(), format!("`{}` stands here twice", scalar.text));
                self.found.problems.push(problem.help("remove one of the two"));
            }
            let label = item.span.clone();
            self.under(index.to_string(), |walk| walk.node(item, each, &label));
        }
    }

    /// `false` if there are too few or too many keys for the rest to mean anything.
    fn map(&mut self, entries: &mut Vec<Entry>, shape: Shape<'_>, place: Range<usize>) -> bool {
        let (mut meant, written) = (HashSet::new(), entries.len());
        entries.retain_mut(|entry| self.entry(entry, shape, &mut meant));
        for key in shape.required() {
            if entries.iter().any(|entry| entry.key == key) {
                continue;
            }
            // An unknown key that was meant to be this one is error enough.
            if !meant.contains(key) {
                let what = shape.property(key).and_then(Shape::summary);
                let help = what
                    .map_or_else(|| format!("add `{key}: ...`"), |what| format!("add `{key}: ...`: {what}"));
                self.found
                    .problems
                    .push(Problem::new(place.clone(), format!("missing key `{key}`")).help(help));
            }
            entries.extend(shape.entry(key));
            self.under(key.to_owned(), |walk| walk.found.repaired.push(walk.path.clone()));
        }
        let least = shape.count("minProperties").unwrap_or(0);
        if written < least {
            let problem = Problem::new(place, "nothing is written here");
            self.problem(problem.help(format!("write {}", choices(shape.keys()))));
        } else if let Some(entry) = shape.count("maxProperties").and_then(|most| entries.get(most)) {
            let problem = Problem::new(entry.key_span.clone(), format!("`{}` is one too many", entry.key));
            self.problem(problem.help(format!("write only one of {}", choices(shape.keys()))));
            return false;
        }
        entries.len() >= least
    }

    /// Whether the entry may stay.
    fn entry<'s>(&mut self, entry: &mut Entry, shape: Shape<'s>, meant: &mut HashSet<&'s str>) -> bool {
        let value_shape = match (shape.property(&entry.key), shape.other_values()) {
            (Some(property), _) | (None, Ok(Some(property))) => property,
            (None, Ok(None)) => return true,
            (None, Err(())) => {
                let keys: Vec<_> = shape.keys().collect();
                let guess = nearest(&entry.key, keys.iter().copied());
                let secret = guess.and_then(|key| shape.property(key)).is_some_and(Shape::is_secret);
                if secret || sounds_secret(&entry.key) {
                    self.found.secrets.push(entry.value.span.clone());
                }
                meant.extend(guess);
                self.under(entry.key.clone(), |walk| {
                    walk.problem(unknown_key(entry, shape.key_noun(), &keys))
                });
                return false;
            }
        };
        if let (None, Some(keys)) = (shape.property(&entry.key), shape.other_keys()) {
            let problem = self.text(&mut Scalar::text(entry.key.clone()), keys, &entry.key_span);
            self.found.problems.extend(problem);
        }
        let Entry { key, key_span, value } = entry;
        self.under(key.clone(), |walk| walk.node(value, value_shape, key_span));
        true
    }

    fn under(&mut self, key: String, walk: impl FnOnce(&mut Self)) {
        self.path.push(key);
        walk(self);
        self.path.pop();
    }

    /// Notes what is wrong with the place we are at.
    fn problem(&mut self, problem: Problem) {
        self.found.problems.push(problem);
        self.found.repaired.push(self.path.clone());
    }

    /// Where an error of a node is shown: at its key if the node is empty or long.
    fn place(&self, node: &Node, label: &Range<usize>) -> Range<usize> {
        let text = self.text.get(node.span.clone()).unwrap_or_default();
        let long = !matches!(node.value, Value::Scalar(_)) && text.contains('\n');
        if text.is_empty() || long { label.clone() } else { node.span.clone() }
    }
}

/// The alternative whose tag (a property with one allowed word) the mapping carries.
fn tagged<'s>(entries: &[Entry], many: &[Shape<'s>]) -> Option<Shape<'s>> {
    let carries = |shape: &&Shape<'s>| {
        entries.iter().any(|entry| {
            match (&entry.value.value, shape.property(&entry.key).and_then(Shape::words)) {
                (Value::Scalar(scalar), Some(words)) => words == [scalar.text.as_str()],
                _ => false,
            }
        })
    };
    many.iter().find(carries).copied()
}

/// Whether a value under a key that nobody knows may be a secret.
fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "credential"].iter().any(|word| key.contains(word))
}
