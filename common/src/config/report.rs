//! What is wrong with a configuration: every error at once, each with its place, the line and a caret.
//!
//! A [`Problem`] is a span of the text; an [`Issues`] entry is a path, found by the semantic checks, which see
//! the document and not the text. A [`Report`] is made of problems: the text is gone then, and of each line
//! only what may be shown is left: secrets are `***`.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::secret::MASK;

/// Errors that a report keeps. Nobody reads more, and a file that is wrong all over must not fill a log.
const FINDINGS_MAX: usize = 200;

/// One error and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    span: Range<usize>,
    message: String,
    help: Option<String>,
    /// Another place that has to do with it, and what is there.
    see: Option<(Range<usize>, &'static str)>,
}

impl Problem {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None, see: None }
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn see(mut self, span: Range<usize>, what: &'static str) -> Self {
        self.see = Some((span, what));
        self
    }
}

/// Where semantic errors are collected. A path names the place: keys, and indices in lists.
#[derive(Debug, Default)]
pub struct Issues {
    pub(super) found: Vec<Issue>,
}

/// One semantic error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issue {
    pub(super) path: Vec<String>,
    pub(super) at_key: bool,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Issues {
    /// An error of the value at `path`, as `["clusters", "main", "endpoints", "0"]`; `help` says what to write
    /// instead. If the value is not in the file (a default), the error is shown at the nearest place above.
    pub fn at(&mut self, path: &[&str], message: impl Into<String>, help: Option<&str>) {
        self.push(path, false, message.into(), help);
    }

    /// An error of the key at `path` rather than of its value.
    pub fn at_key(&mut self, path: &[&str], message: impl Into<String>, help: Option<&str>) {
        self.push(path, true, message.into(), help);
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn push(&mut self, path: &[&str], at_key: bool, message: String, help: Option<&str>) {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        self.found.push(Issue { path, at_key, message, help: help.map(str::to_owned) });
    }
}

/// Every error of a configuration, in the order of the text. `Display` shows them for a log or a pipe,
/// [`styled`](Report::styled) for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    name: String,
    findings: Vec<Finding>,
    /// How many there are, those that are not kept included.
    count: usize,
    files: Vec<PathBuf>,
}

/// One error of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line, from 1; 0 if the error is of the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 likewise.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    note: Option<String>,
    /// The line, with secrets masked, and the bytes of it that are at fault.
    source: String,
    marked: Range<usize>,
}

impl Report {
    /// A report of one error that has no place: the file cannot be read.
    pub(super) fn of_file(path: &Path, message: String, help: Option<&str>) -> Self {
        let finding = Finding {
            line: 0,
            column: 0,
            message,
            help: help.map(str::to_owned),
            note: None,
            source: String::new(),
            marked: 0..0,
        };
        Self {
            name: path.display().to_string(),
            findings: vec![finding],
            count: 1,
            files: vec![path.to_owned()],
        }
    }

    /// A report of problems in `text`, of which the spans in `secrets` are not shown.
    pub(super) fn new(name: &str, text: &str, mut problems: Vec<Problem>, secrets: &[Range<usize>]) -> Self {
        problems.sort_by(|one, other| {
            let key = |problem: &Problem| (problem.span.start, problem.span.end);
            key(one).cmp(&key(other)).then_with(|| one.message.cmp(&other.message))
        });
        // An error in what an alias stands for is found once for each alias.
        problems.dedup();
        let lines = Lines::new(text);
        let count = problems.len();
        let shown = problems.into_iter().take(FINDINGS_MAX);
        let findings = shown.map(|problem| lines.finding(problem, secrets)).collect();
        Self { name: name.to_owned(), findings, count, files: Vec::new() }
    }

    /// With the files that the configuration depends on, so that a watch sees them become right.
    pub(super) fn with_files(self, files: Vec<PathBuf>) -> Self {
        Self { files, ..self }
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The errors, in the order of the text.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// For a terminal: as `Display`, with colours.
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut shown: Vec<String> =
            self.findings.iter().map(|finding| renderer.render(&[finding.group(&self.name)])).collect();
        if self.count > 1 {
            let cut = if self.count > self.findings.len() { ", of which the first are shown" } else { "" };
            shown.push(format!("{}: {} errors{cut}", self.name, self.count));
        }
        shown.join("\n\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for Report {}

impl Finding {
    fn group<'a>(&'a self, name: &'a str) -> Group<'a> {
        let title = Level::ERROR.primary_title(&self.message);
        let mut group = if self.line == 0 {
            title.element(Origin::path(name))
        } else {
            let marked = AnnotationKind::Primary.span(self.marked.clone());
            let snippet = Snippet::source(&self.source).line_start(self.line).annotation(marked);
            let shown = self.source.get(..self.marked.start).unwrap_or_default().chars().count() + 1;
            if shown == self.column {
                title.element(snippet.path(name))
            } else {
                // A mask before the error moved what the snippet would take for its column.
                title.element(Origin::path(name).line(self.line).char_column(self.column)).element(snippet)
            }
        };
        if let Some(note) = &self.note {
            group = group.element(Level::NOTE.message(note));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        group
    }
}

/// A text and where its lines begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line, from 1, that holds a byte.
    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn finding(&self, problem: Problem, secrets: &[Range<usize>]) -> Finding {
        let Problem { span, message, help, see } = problem;
        let at_end = span.start >= self.text.len();
        // What is missing at the end is shown behind the last thing that is there.
        let start = if at_end { self.text.trim_end().len() } else { span.start };
        let line = self.number(start);
        let line_start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        let rest = self.text.get(line_start..).unwrap_or_default();
        let shown = rest.lines().next().unwrap_or_default();
        let before = self.text.get(line_start..start).unwrap_or_default();
        let (source, marked) = masked(shown, line_start, start..span.end.max(start), secrets);
        Finding {
            line,
            column: before.chars().count() + 1,
            message,
            help,
            note: see.map(|(span, what)| format!("{what} on line {}", self.number(span.start))),
            source,
            marked,
        }
    }
}

/// A stretch of a line: as it was, and where it is in what is shown.
struct Piece {
    was: Range<usize>,
    shown: Range<usize>,
    hidden: bool,
}

/// A line with its secrets masked, and a span of the text as a span of what is left of the line.
fn masked(
    line: &str,
    line_start: usize,
    span: Range<usize>,
    secrets: &[Range<usize>],
) -> (String, Range<usize>) {
    let relative = |offset: usize| offset.clamp(line_start, line_start + line.len()) - line_start;
    let mut hidden: Vec<_> =
        secrets.iter().map(|secret| relative(secret.start)..relative(secret.end)).collect();
    hidden.retain(|range| !range.is_empty());
    hidden.sort_by_key(|range| range.start);

    let (mut shown, mut pieces, mut done) = (String::new(), Vec::new(), 0);
    let mut push = |was: Range<usize>, text: &str, hidden: bool| {
        let start = shown.len();
        shown.push_str(text);
        pieces.push(Piece { was, shown: start..shown.len(), hidden });
    };
    for range in hidden.into_iter().filter(|range| range.end > 0) {
        if range.end <= done {
            continue;
        }
        let start = range.start.max(done);
        push(done..start, line.get(done..start).unwrap_or_default(), false);
        push(start..range.end, MASK, true);
        done = range.end;
    }
    push(done..line.len(), line.get(done..).unwrap_or_default(), false);

    let start = relative(span.start);
    let end = relative(span.end).max(start);
    let first = pieces.iter().rfind(|piece| piece.was.start <= start);
    let last = pieces.iter().find(|piece| end <= piece.was.end);
    let shown_start = first.map_or(0, |piece| match piece.hidden {
        true => piece.shown.start,
        false => piece.shown.start + (start - piece.was.start),
    });
    let shown_end = last.map_or(shown.len(), |piece| match piece.hidden {
        true => piece.shown.end,
        false => piece.shown.start + end.saturating_sub(piece.was.start),
    });
    (shown, shown_start..shown_end.max(shown_start))
}
