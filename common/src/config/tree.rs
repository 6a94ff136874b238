//! YAML text to a tree whose every node knows its place.
//!
//! The parser's events are put together here, because what is wrong must be found all at once: duplicate
//! keys, tags and unknown aliases are noted and the tree goes on. Aliases are copied in and merge keys (`<<`)
//! resolved, within [`COPIED_NODES_MAX`] and [`DEPTH_MAX`], so that a small text cannot become a large tree.
//! Only a syntax error ends it: what stands behind one cannot be understood.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::report::Problem;

/// Nodes that aliases may add to a tree.
const COPIED_NODES_MAX: usize = 1_000_000;
/// Levels of a tree, aliases included. What walks a tree recurses as deep.
const DEPTH_MAX: usize = 64;

/// A value and its place, in bytes of the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that could not be read, which has been said.
    Refused,
}

/// A scalar as it is written. What a plain one means depends on the type that is wanted: see [`Scalar::meaning`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Without quotes: `5` may be a number, `"5"` is a text.
    pub(super) plain: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: Node,
}

/// What a scalar means in YAML 1.2's core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meaning {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

impl Scalar {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), plain: false }
    }

    pub(super) fn meaning(&self) -> Meaning {
        if !self.plain {
            return Meaning::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
            "true" | "True" | "TRUE" => Meaning::Bool(true),
            "false" | "False" | "FALSE" => Meaning::Bool(false),
            text => number(text),
        }
    }
}

/// Decimal, `0x` and `0o` integers and decimal floats. A decimal with a leading zero stays a text: YAML 1.1 took
/// it for octal, 1.2 does not, and people mean either.
fn number(text: &str) -> Meaning {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Meaning::Text;
    }
    let radix =
        |prefix: &str, radix| digits.strip_prefix(prefix).map(|rest| u64::from_str_radix(rest, radix));
    if let Some(parsed) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return parsed.ok().filter(|_| digits.len() == text.len()).map_or(Meaning::Text, Meaning::Unsigned);
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Meaning::Text;
    }
    if let Ok(value) = text.parse() {
        return Meaning::Unsigned(value);
    }
    if let Ok(value) = text.parse() {
        return Meaning::Signed(value);
    }
    let decimal = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse::<f64>() {
        Ok(value) if decimal && value.is_finite() => Meaning::Float(value),
        _ => Meaning::Text,
    }
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.meaning() == Meaning::Null)
    }

    /// How many nodes and how many levels.
    fn measure(&self) -> (usize, usize) {
        let children: Box<dyn Iterator<Item = &Self>> = match &self.value {
            Value::Scalar(_) | Value::Refused => return (1, 1),
            Value::List(items) => Box::new(items.iter()),
            Value::Map(entries) => Box::new(entries.iter().map(|entry| &entry.value)),
        };
        let (nodes, depth) =
            children.map(Self::measure).fold((0, 0), |(n, d), (nodes, depth)| (n + nodes, d.max(depth)));
        (nodes + 1, depth + 1)
    }
}

/// Builds the tree of the one document in `text`, noting what is wrong. `None` after a syntax error.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut options = granit_parser::options! {
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    options.set_emit_comments(false);
    let mut builder = Builder { problems, open: Vec::new(), anchors: HashMap::new(), copied: 0, root: None };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.on(event, place(span, text)),
            Err(error) => Err(syntax_problem(&error, text)),
        };
        if let Err(problem) = step {
            builder.problems.push(problem);
            return None;
        }
    }
    Some(builder.root.unwrap_or(Node { span: 0..0, value: Value::Map(Vec::new()) }))
}

/// The collections that are open, innermost last, and what was read of them.
struct Builder<'p> {
    problems: &'p mut Vec<Problem>,
    open: Vec<Open>,
    /// Finished nodes by anchor. One that is not here yet is still open: an alias to it would never end.
    anchors: HashMap<usize, Node>,
    copied: usize,
    root: Option<Node>,
}

struct Open {
    start: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// Where each key is, to find a second one.
    keys: HashMap<String, Range<usize>>,
    /// Values of `<<`.
    merges: Vec<Node>,
    pending: Pending,
}

/// What the next node of a mapping is.
#[derive(Default)]
enum Pending {
    #[default]
    Key,
    Value(String, Range<usize>),
    /// The value of `<<`.
    Merge,
    /// The value of a key that was refused.
    Ignored,
}

impl Builder<'_> {
    /// `Err` ends the tree.
    fn on(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let problem = Problem::new(span, "a second document starts here");
                return Err(problem.help("keep one document in a file: remove `---`"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = self.tag(tag.as_deref(), &span);
                let plain = matches!(style, ScalarStyle::Plain) && !text_tag;
                let scalar = Scalar { text: text.into_owned(), plain };
                self.finish(Node { span, value: Value::Scalar(scalar) }, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &span);
                self.begin(span, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &span);
                self.begin(span, anchor, Content::Map(OpenMap::default()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span.end),
            Event::Alias(anchor) => {
                let node = self.copy(anchor, &span)?;
                self.finish(node, 0);
            }
            Event::UnresolvedAlias(_) => {
                // Its name is not repeated: it may be a secret that begins with `*`.
                let help =
                    "an alias needs an anchor (`&name`) above it; a text that begins with `*` needs quotes";
                self.problems.push(Problem::new(span.clone(), "this alias has no anchor").help(help));
                self.finish(refused(span), 0);
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            // Anchors and comments are not asked for; what a later parser may add stands for no node.
            Event::Anchor(..) | _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, span: Range<usize>, anchor: usize, content: Content) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Problem::new(span, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.open.push(Open { start: span.start, anchor, content });
        Ok(())
    }

    fn end(&mut self, end: usize) {
        let Some(Open { start, anchor, content }) = self.open.pop() else { return };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map(map) => Value::Map(self.merge(map)),
        };
        self.finish(Node { span: start..end.max(start), value }, anchor);
    }

    /// A whole node: it goes where the innermost open collection wants it.
    fn finish(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(map)) => map.take(node, self.problems),
        }
    }

    /// What an alias stands for.
    fn copy(&mut self, anchor: usize, span: &Range<usize>) -> Result<Node, Problem> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.problems.push(Problem::new(span.clone(), "this alias stands within what it stands for"));
            return Ok(refused(span.clone()));
        };
        let (nodes, depth) = node.measure();
        self.copied += nodes;
        if self.copied > COPIED_NODES_MAX || self.open.len() + depth > DEPTH_MAX {
            let message = "aliases make the configuration too large";
            let help = format!("they may add {COPIED_NODES_MAX} values, nested {DEPTH_MAX} levels deep");
            return Err(Problem::new(span.clone(), message).help(help));
        }
        Ok(node.clone())
    }

    /// The entries of a mapping with those of its `<<`: its own win, then the first that is named.
    fn merge(&mut self, map: OpenMap) -> Vec<Entry> {
        let OpenMap { mut entries, mut keys, merges, .. } = map;
        let sources = merges.into_iter().flat_map(|node| match node.value {
            Value::List(items) => items,
            Value::Refused => Vec::new(),
            Value::Map(_) | Value::Scalar(_) => vec![node],
        });
        for Node { span, value } in sources {
            let Value::Map(merged) = value else {
                let problem = Problem::new(span, "`<<` takes in a mapping, or a list of them");
                self.problems.push(problem.help("write `<<: *name` or `<<: [*one, *two]`"));
                continue;
            };
            for entry in merged {
                if !keys.contains_key(&entry.key) {
                    keys.insert(entry.key.clone(), entry.key_span.clone());
                    entries.push(entry);
                }
            }
        }
        entries
    }

    /// Whether a tag makes a text of the scalar. Others than `!!str` mean nothing here.
    fn tag(&mut self, tag: Option<&Tag>, span: &Range<usize>) -> bool {
        let Some(tag) = tag else { return false };
        let text = tag.is_yaml_core_schema_tag("str");
        if !text {
            let problem = Problem::new(span.clone(), "tags are not used here");
            self.problems
                .push(problem.help("remove the word with `!`; a text that begins with `!` needs quotes"));
        }
        text
    }
}

impl OpenMap {
    fn take(&mut self, node: Node, problems: &mut Vec<Problem>) {
        match std::mem::take(&mut self.pending) {
            Pending::Key => self.pending = self.key(node, problems),
            Pending::Value(key, key_span) => self.entries.push(Entry { key, key_span, value: node }),
            Pending::Merge => self.merges.push(node),
            Pending::Ignored => {}
        }
    }

    fn key(&mut self, node: Node, problems: &mut Vec<Problem>) -> Pending {
        let span = node.span;
        if node.value == Value::Refused {
            return Pending::Ignored;
        }
        let Value::Scalar(Scalar { text, plain }) = node.value else {
            problems.push(Problem::new(span, "a key must be a text"));
            return Pending::Ignored;
        };
        if let Some(first) = self.keys.insert(text.clone(), span.clone()) {
            let problem = Problem::new(span, format!("duplicate key `{text}`"));
            let help =
                if plain && text == "<<" { "write `<<: [*one, *two]`" } else { "remove one of the two" };
            problems.push(problem.help(help).see(first.clone(), "the first is"));
            self.keys.insert(text, first);
            return Pending::Ignored;
        }
        if plain && text == "<<" { Pending::Merge } else { Pending::Value(text, span) }
    }
}

fn refused(span: Range<usize>) -> Node {
    Node { span, value: Value::Refused }
}

/// A span in bytes of the text, which the parser gives for every input that is a `str`.
fn place(span: Span, text: &str) -> Range<usize> {
    let start = offset(span.start, text);
    start..offset(span.end, text).max(start)
}

fn offset(marker: granit_parser::Marker, text: &str) -> usize {
    let mut offset = marker.byte_offset().unwrap_or(0).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn syntax_problem(error: &ScanError, text: &str) -> Problem {
    let at = offset(*error.marker(), text);
    let width = text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let problem = Problem::new(at..at + width, format!("not YAML: {}", error.info()));
    match syntax_help(error.kind()) {
        Some(help) => problem.help(help),
        None => problem,
    }
}

/// What to write instead, for the errors that people make most.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the parser tells 80 kinds apart, and most say it themselves"
)]
fn syntax_help(kind: &ErrorKind) -> Option<&'static str> {
    use ErrorKind as E;
    match kind {
        E::TabInIndentation | E::TabInBlockIndentation | E::TabNotAllowed | E::TabInPlainScalar => {
            Some("indent with spaces")
        }
        E::UnexpectedEofFlowSequence | E::ExpectedFlowSequenceSeparator => {
            Some("close the list with `]`, and put `,` between its items")
        }
        E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping
        | E::ExpectedFlowMappingSeparator => {
            Some("close the mapping with `}`, and put `,` between its entries")
        }
        E::UnclosedFlowCollection { .. } | E::MismatchedFlowCollectionEnd { .. } => {
            Some("each `[` needs its `]`, each `{` its `}`")
        }
        E::UnclosedQuotedScalar => Some("close the quotes"),
        E::UnknownQuotedScalarEscape => Some("write `\\\\` for a backslash, or use single quotes"),
        E::MappingValueNotAllowed | E::InvalidColonPlacement => {
            Some("a text that holds `: ` needs quotes; a nested key stands on a line of its own")
        }
        E::ExpectedBlockMappingKey | E::InvalidIndentation | E::SimpleKeyExpected | E::InvalidSimpleKey => {
            Some("write `key: value`, indented like its neighbours")
        }
        E::RecursionLimitExceeded => Some("nest less deeply"),
        _ => None,
    }
}
