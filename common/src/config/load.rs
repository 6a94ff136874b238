//! From a file to a checked document.
//!
//! ```text
//! text -> tree (spans, aliases, merge keys) -> walk (the schema) -> serde -> semantics, validate
//!              |                                  |                    |        |
//!              +------------- problems -----------+--------------------+--------+--> Report
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::check::{self, Findings, OwnFormats};
use super::report::{Issue, Problem};
use super::shape::Shape;
use super::tree::{self, Node, Value};
use super::{Document, Issues, Report, semantics};

/// The largest file that is read.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A configuration that holds.
#[derive(Debug, Clone)]
pub struct Loaded<D> {
    /// What it says.
    pub document: D,
    /// The file it is in.
    pub path: PathBuf,
    /// Every file it depends on: itself, secrets, certificates.
    pub files: Vec<PathBuf>,
    /// The text of the file.
    pub text: String,
}

/// Reads and checks a file.
pub fn load<D: Document>(path: &Path) -> Result<Loaded<D>, Report> {
    let text = read_text(path)?;
    let mut files = vec![path.to_owned()];
    let checked = Input::of_file(path, &text).document::<D>(&mut files);
    match checked {
        Ok(document) => Ok(Loaded { document, path: path.to_owned(), files, text }),
        Err(report) => Err(report.with_files(files)),
    }
}

/// Checks a text as if it were the file `name`; relative paths in it begin where the program runs.
pub fn check_text<D: Document>(name: &str, text: &str) -> Result<D, Report> {
    Input { name: name.to_owned(), folder: PathBuf::new(), text }.document(&mut Vec::new())
}

/// Reads a file that is not the configuration itself, as strictly: a list of endpoints, a table of users.
pub fn read<T: DeserializeOwned + JsonSchema>(path: &Path) -> Result<T, Report> {
    let text = read_text(path)?;
    let parsed = Input::of_file(path, &text).parse::<T>(&schemars::schema_for!(T).to_value(), |_, _| Ok(()));
    match parsed.value {
        Some(value) if parsed.problems.is_empty() => Ok(value),
        _ => Err(parsed.report(&path.display().to_string(), &text)),
    }
}

/// Checks a text that is one entry of a document, `at` its path there, as strictly as the whole: an app that comes over
/// the admin API. `validate` is told the entry and says what it finds at the paths of the whole document.
pub fn check_entry<D: Document, T: DeserializeOwned + JsonSchema>(
    name: &str,
    text: &str,
    at: &[&str],
    validate: impl FnOnce(&T, &mut Issues),
) -> Result<T, Report> {
    let input = Input { name: name.to_owned(), folder: PathBuf::new(), text };
    let mut parsed = input.parse::<T>(&schemars::schema_for!(T).to_value(), D::format);
    if let (Some(entry), Some(tree)) = (&parsed.value, &parsed.tree) {
        let mut issues = Issues::default();
        validate(entry, &mut issues);
        let below = |mut issue: Issue| {
            issue.path.drain(..at.len().min(issue.path.len()));
            issue
        };
        let found = issues.found.into_iter().map(below);
        let sound = found.filter(|issue| !rests_on_stand_in(issue, &parsed.repaired));
        parsed.problems.extend(sound.map(|issue| input.located(issue, tree)));
    }
    match parsed.value.take() {
        Some(entry) if parsed.problems.is_empty() => Ok(entry),
        _ => Err(parsed.report(name, text)),
    }
}

/// The JSON Schema of a document, for editors.
pub fn schema<D: Document>() -> Json {
    let mut schema = schemars::schema_for!(D);
    // Anchors need a place to be written: see `without_extensions`.
    schema.insert("patternProperties".to_owned(), serde_json::json!({ "^x-": true }));
    schema.to_value()
}

fn read_text(path: &Path) -> Result<String, Report> {
    let fail = |message: String, help: Option<&str>| Err(Report::of_file(path, message, help));
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return fail("there is no such file".to_owned(), None);
        }
        Err(error) => return fail(format!("cannot read it: {error}"), None),
    };
    if size > TEXT_BYTES_MAX {
        return fail(format!("it is larger than {} MiB", TEXT_BYTES_MAX >> 20), None);
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            fail("it is not text".to_owned(), Some("save it as UTF-8"))
        }
        Err(error) => fail(format!("cannot read it: {error}"), None),
    }
}

/// A text, what it is called, and where relative paths in it begin.
struct Input<'t> {
    name: String,
    folder: PathBuf,
    text: &'t str,
}

/// What became of a text.
struct Parsed<T> {
    problems: Vec<Problem>,
    secrets: Vec<Range<usize>>,
    /// The tree, with stand-ins where it was wrong, and where those are.
    tree: Option<Node>,
    repaired: Vec<Vec<String>>,
    files: Vec<PathBuf>,
    value: Option<T>,
}

impl<T> Parsed<T> {
    fn report(self, name: &str, text: &str) -> Report {
        Report::new(name, text, self.problems, &self.secrets)
    }
}

impl<'t> Input<'t> {
    fn of_file(path: &Path, text: &'t str) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        // A mark that some editors put in front is no part of the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { name: path.display().to_string(), folder, text }
    }

    fn document<D: Document>(&self, files: &mut Vec<PathBuf>) -> Result<D, Report> {
        let mut parsed = self.parse::<D>(&schema::<D>(), D::format);
        files.append(&mut parsed.files);
        if let (Some(document), Some(tree)) = (&parsed.value, &parsed.tree) {
            let mut issues = Issues::default();
            semantics::of_document(document, &mut issues);
            document.validate(&mut issues);
            let sound = issues.found.into_iter().filter(|issue| !rests_on_stand_in(issue, &parsed.repaired));
            parsed.problems.extend(sound.map(|issue| self.located(issue, tree)));
        }
        match parsed.value.take() {
            Some(document) if parsed.problems.is_empty() => Ok(document),
            _ => Err(parsed.report(&self.name, self.text)),
        }
    }

    fn parse<T: DeserializeOwned>(&self, schema: &Json, own: OwnFormats) -> Parsed<T> {
        let mut problems = Vec::new();
        let tree = tree::parse(self.text, &mut problems);
        let shape = Shape::root(schema);
        // What the tree left out, the walk does not see: secrets in it are found by their keys.
        let mut secrets =
            if problems.is_empty() { Vec::new() } else { hidden_by_key(self.text, &shape.secret_keys()) };
        let Some(mut tree) = tree else {
            return Parsed {
                problems,
                secrets,
                tree: None,
                repaired: Vec::new(),
                files: Vec::new(),
                value: None,
            };
        };
        without_extensions(&mut tree);
        let walked = check::check(self.text, &mut tree, shape, &self.folder, own);
        let Findings { problems: found, secrets: hidden, files, repaired } = walked;
        let clean = found.is_empty();
        problems.extend(found);
        secrets.extend(hidden);
        let value = match T::deserialize(&tree) {
            Ok(value) => Some(value),
            Err(refused) => {
                // What stood in for an error may not be to the taste of a type; that is no error of its own.
                if clean {
                    problems.push(Problem::new(refused.span.unwrap_or(0..0), refused.message));
                }
                None
            }
        };
        Parsed { problems, secrets, tree: Some(tree), repaired, files, value }
    }

    /// The place of a semantic error: the nearest to its path that is in the text.
    fn located(&self, issue: Issue, tree: &Node) -> Problem {
        let (mut node, mut label, mut whole) = (tree, 0..0, true);
        for part in &issue.path {
            let below = match &node.value {
                Value::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == *part)
                    .map(|entry| (&entry.value, entry.key_span.clone())),
                Value::List(items) => part
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|item| (item, item.span.clone())),
                Value::Scalar(_) | Value::Refused => None,
            };
            match below {
                Some(found) => (node, label) = found,
                None => {
                    whole = false;
                    break;
                }
            }
        }
        let value = self.text.get(node.span.clone()).unwrap_or_default();
        let long = value.contains('\n') && !matches!(node.value, Value::Scalar(_));
        let span = if issue.at_key || !whole || value.is_empty() || long { label } else { node.span.clone() };
        let problem = Problem::new(span, issue.message);
        match issue.help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

/// Keys of the document that begin with `x-` are for people: a place to write anchors.
fn without_extensions(tree: &mut Node) {
    if let Value::Map(entries) = &mut tree.value {
        entries.retain(|entry| !entry.key.starts_with("x-"));
    }
}

/// Whether what is said may be so only because of a stand-in: one at its place, above, below or beside it.
fn rests_on_stand_in(issue: &Issue, repaired: &[Vec<String>]) -> bool {
    let beside = match issue.path.split_last() {
        Some((_, above)) if !above.is_empty() => above,
        _ => issue.path.as_slice(),
    };
    repaired.iter().any(|path| path.starts_with(beside) || issue.path.starts_with(path))
}

/// Spans of values under keys that are secrets, found without understanding the text: to the end of the line,
/// and the lines below that are further in.
fn hidden_by_key(text: &str, keys: &[&str]) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    for key in keys {
        for (at, _) in text.match_indices(key) {
            let rest = text.get(at + key.len()..).unwrap_or_default();
            let after = rest.trim_start_matches(['"', '\'']).trim_start_matches(' ');
            let Some(value) = after.strip_prefix(':') else { continue };
            let value = value.trim_start_matches(' ');
            let start = text.len() - value.len();
            hidden.push(start..start + value_length(text, at, value));
        }
    }
    hidden
}

fn value_length(text: &str, key_at: usize, value: &str) -> usize {
    let line_start = text.get(..key_at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let own = indent(text.get(line_start..).unwrap_or_default());
    let mut lines = value.split_inclusive('\n');
    let first = lines.next().map_or(0, str::len);
    first + lines.take_while(|line| line.trim().is_empty() || indent(line) > own).map(str::len).sum::<usize>()
}
