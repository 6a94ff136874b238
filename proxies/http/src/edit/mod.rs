//! Header edits that depend on the message: templates, conditions, renames, replacements. Pure.
//!
//! What comes out of this room for one message is an [`Edits`], as a list without any of this makes it once for all
//! messages: names that go and lines that come. So there is one place that writes heads, and what it does not do (touch
//! how a message is framed) nobody here can ask for.

pub mod condition;
pub mod template;
#[cfg(test)]
mod tests;

use crate::auth::Identity;
use crate::config::edits::{Headers, Verbs};
use crate::scene::{Kept, Scene, lines};
use crate::wire::edits::{Line, Stripped};
use crate::wire::{Edits, ReplyHead, is_host};
use condition::{Condition, Test, statuses};
use regex::bytes::Regex;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use template::{ReplyScene, Side, Subject, Template, field_value};

/// The most fields that the edits of one message may come to; what goes beyond is left out.
const LINES_MAX: usize = 128;

/// Edits to be worked out for each message, in the order in which they are made.
#[derive(Debug, Clone, Default)]
pub struct Program(Vec<Block>);

#[derive(Debug, Clone)]
struct Block {
    condition: Option<Condition>,
    path_pattern: Option<Arc<Regex>>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Remove(Box<[u8]>),
    Rename { from: Box<[u8]>, to: Box<[u8]> },
    Replace { name: Box<[u8]>, pattern: Regex, with: Box<[u8]> },
    Set(Box<[u8]>, Template),
    Add(Box<[u8]>, Template),
}

/// Why edits cannot be made ready; a configuration that was checked has none of it.
pub type ProgramError = Box<dyn std::error::Error + Send + Sync>;

impl Program {
    /// The edits of a list, and then those of others: an app's, and then its route's.
    pub fn new(lists: &[&Headers], side: Side) -> Result<Self, ProgramError> {
        let mut blocks = Vec::new();
        for list in lists {
            let path_pattern = match &list.path_pattern {
                Some(pattern) => Some(Arc::new(Regex::new(pattern)?)),
                None => None,
            };
            let block = |condition, verbs: Verbs<'_>| -> Result<Block, ProgramError> {
                Ok(Block { condition, path_pattern: path_pattern.clone(), steps: steps(&verbs, side)? })
            };
            blocks.push(block(None, list.verbs())?);
            for when in &list.when {
                let condition = Condition {
                    header: match &when.condition.header {
                        Some(name) => Some((name.as_bytes().into(), test(&when.condition)?)),
                        None => None,
                    },
                    status: when.condition.status.iter().filter_map(|text| statuses(text)).collect(),
                };
                blocks.push(block(Some(condition), when.verbs())?);
            }
        }
        blocks.retain(|block| !block.steps.is_empty());
        Ok(Self(blocks))
    }

    /// What a request gets: the lines of who it was found to be, and then the edits.
    pub fn of_request(&self, scene: &Scene<'_>, stripped: Option<Arc<Stripped>>) -> Edits {
        let mut draft = Draft::new(scene.fields, Some(scene));
        if let Some(identity) = scene.identity {
            identity.write(&mut draft);
        }
        self.run(&Subject { request: scene, reply: None, captures: None }, &mut draft);
        draft.finish().stripping(stripped)
    }

    fn run(&self, subject: &Subject<'_>, draft: &mut Draft<'_>) {
        for block in &self.0 {
            let status = subject.reply.map(|reply| reply.status);
            if block.condition.as_ref().is_some_and(|it| !it.holds(status, |name| draft.values(name))) {
                continue;
            }
            let captures = block.path_pattern.as_ref().and_then(|it| it.captures(subject.request.path()));
            let subject = Subject { captures: captures.as_ref(), ..*subject };
            for step in &block.steps {
                draft.take(step, &subject);
            }
        }
    }
}

fn test(condition: &crate::config::edits::Condition) -> Result<Test, ProgramError> {
    Ok(match (&condition.equals, &condition.matches) {
        (Some(value), _) => Test::Equals(value.as_bytes().into()),
        (None, Some(pattern)) => Test::Matches(Regex::new(pattern)?),
        (None, None) if condition.absent => Test::Absent,
        (None, None) => Test::Present,
    })
}

fn steps(verbs: &Verbs<'_>, side: Side) -> Result<Vec<Step>, ProgramError> {
    let mut steps = Vec::new();
    let name = |name: &str| -> Box<[u8]> { name.as_bytes().into() };
    steps.extend(verbs.remove.iter().map(|gone| Step::Remove(name(gone))));
    steps.extend(verbs.rename.iter().map(|(from, to)| Step::Rename { from: name(from), to: name(to) }));
    for (of, replace) in verbs.replace {
        let pattern = Regex::new(&replace.pattern)?;
        steps.push(Step::Replace { name: name(of), pattern, with: name(&replace.with) });
    }
    for (of, value) in verbs.set {
        steps.push(Step::Set(name(of), Template::parse(value, side)?));
    }
    for (of, value) in verbs.add {
        steps.push(Step::Add(name(of), Template::parse(value, side)?));
    }
    Ok(steps)
}

/// What edits have come to so far.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The lines that came.
    fields: &'a [u8],
    /// Which of a request's lines count.
    scene: Option<&'a Scene<'a>>,
    removed: Vec<Box<[u8]>>,
    lines: Vec<Line>,
}

impl<'a> Draft<'a> {
    fn new(fields: &'a [u8], scene: Option<&'a Scene<'a>>) -> Self {
        Self { fields, scene, removed: Vec::new(), lines: Vec::new() }
    }

    /// Takes away every field of that name.
    pub fn remove(&mut self, name: &[u8]) {
        self.lines.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        if !self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name)) {
            self.removed.push(name.into());
        }
    }

    /// Puts a field at the end; one that cannot be a field is left out.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let is_host = !name.eq_ignore_ascii_case(b"host") || (!value.is_empty() && is_host(value));
        if let Some(value) = field_value(value).filter(|_| is_host && self.lines.len() < LINES_MAX) {
            self.lines.push((name.into(), value.into()));
        }
    }

    /// The values that fields of that name have now.
    fn values(&self, name: &[u8]) -> Vec<Box<[u8]>> {
        let is_gone = self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name));
        let ours = self.lines.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut values = Vec::new();
        if !is_gone {
            let mut keep = |(other, value): (&[u8], &[u8])| {
                if other.eq_ignore_ascii_case(name) {
                    values.push(value.into());
                }
            };
            match self.scene {
                Some(scene) => scene.headers().for_each(&mut keep),
                None => lines(self.fields).for_each(&mut keep),
            }
        }
        values.extend(ours.map(|(_, value)| value.clone()));
        values
    }

    fn take(&mut self, step: &Step, subject: &Subject<'_>) {
        match step {
            Step::Remove(name) => self.remove(name),
            Step::Rename { from, to } => {
                let values = self.values(from);
                self.remove(from);
                if !values.is_empty() {
                    self.remove(to);
                }
                values.iter().for_each(|value| self.add(to, value));
            }
            Step::Replace { name, pattern, with } => {
                let values = self.values(name);
                if values.iter().any(|value| pattern.is_match(value)) {
                    self.remove(name);
                    for value in &values {
                        self.add(name, &pattern.replace_all(value, &**with));
                    }
                }
            }
            Step::Set(name, template) => {
                let value = value(template, subject);
                // A Host that cannot be made leaves the one that came: a request without one would be malformed.
                let is_host_name = name.eq_ignore_ascii_case(b"host");
                if is_host_name && !value.as_deref().is_some_and(|value| !value.is_empty() && is_host(value))
                {
                    return;
                }
                self.remove(name);
                if let Some(value) = value {
                    self.add(name, &value);
                }
            }
            Step::Add(name, template) => {
                if let Some(value) = value(template, subject) {
                    self.add(name, &value);
                }
            }
        }
    }

    fn finish(self) -> Edits {
        Edits::of_message(self.removed, &self.lines)
    }
}

fn value<'a>(template: &'a Template, subject: &Subject<'_>) -> Option<Cow<'a, [u8]>> {
    match template.fixed() {
        Some(fixed) => Some(Cow::Borrowed(fixed)),
        None => template.value(subject).map(|value| Cow::Owned(value.into())),
    }
}

/// The edits of one request's reply, and what of the request they may ask for.
#[derive(Debug)]
pub struct ReplyProgram<'v> {
    /// The app.
    pub app: &'v str,
    /// What is edited.
    pub program: &'v Program,
    /// The request.
    pub request: Kept,
    /// What authentication writes.
    pub stripped: Option<&'v Stripped>,
    /// Who sent it.
    pub identity: Option<Rc<Identity>>,
}

impl ReplyProgram<'_> {
    /// What a final reply gets: these edits, then those that are the same for all replies (`fixed`), then what the
    /// client is told by authentication.
    pub fn edits(&self, head: &ReplyHead<'_>, fixed: &Edits) -> Edits {
        let first = head.fields.iter().next();
        let start = first.map_or(head.raw.len().saturating_sub(2), |field| field.line.start());
        let fields = head.raw.get(start..).unwrap_or_default();
        let scene = self.request.scene(self.app, self.stripped, self.identity.as_deref());
        let reply = ReplyScene { status: head.status, fields };
        let mut draft = Draft::new(fields, None);
        self.program.run(&Subject { request: &scene, reply: Some(&reply), captures: None }, &mut draft);
        let edits = draft.finish().then(fixed);
        let Some(identity) = self.identity.as_ref().filter(|identity| identity.has_reply()) else {
            return edits;
        };
        // Behind the edits: none of them may take a session's cookie away by its name.
        let mut draft = Draft::new(fields, None);
        identity.write_reply(&mut draft);
        edits.then(&draft.finish())
    }
}

/// Captures of a pattern that templates may name.
pub fn has_capture(pattern: &Regex, name: &str) -> bool {
    match name.parse::<usize>() {
        Ok(index) => index < pattern.captures_len(),
        Err(_) => pattern.capture_names().flatten().any(|known| known == name),
    }
}
