//! A page of an operator's: a file with `{{ name }}` where a fact of the failure is to stand.
//!
//! Plain substitution, nothing else: a page that is shown when things are broken has no loops to get wrong. What is
//! put in is escaped for the kind of file that it is put into.

use crate::reply::Form;
use std::path::Path;

/// The largest page; larger ones belong to a server of files.
pub const PAGE_BYTES_MAX: u64 = 256 * 1024;

/// The facts that a page may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Status,
    Reason,
    Code,
    Title,
    Message,
    Owner,
    RequestId,
    App,
    Host,
    Client,
    RetryAfter,
}

/// Their names, as a template writes them.
const VARIABLES: [(&str, Variable); 11] = [
    ("status", Variable::Status),
    ("reason", Variable::Reason),
    ("code", Variable::Code),
    ("title", Variable::Title),
    ("message", Variable::Message),
    ("owner", Variable::Owner),
    ("request_id", Variable::RequestId),
    ("app", Variable::App),
    ("host", Variable::Host),
    ("client", Variable::Client),
    ("retry_after", Variable::RetryAfter),
];

/// What is known of one failure. Texts may hold what a client sent: they are escaped when they are put in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The status, `503`.
    pub status: u16,
    /// Its phrase, `Service Unavailable`.
    pub reason: &'a str,
    /// `H80`.
    pub code: &'a str,
    /// `Maintenance mode`.
    pub title: &'a str,
    /// A sentence.
    pub message: &'a str,
    /// `client`, `app` or `proxy`.
    pub owner: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The app's name; empty if none has this host.
    pub app: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// Seconds after which to try again; 0 for nothing known.
    pub retry_after_s: u64,
}

/// A page as read: text, with facts between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    form: Form,
    /// Each text is followed by its fact; the last by none.
    parts: Vec<(Box<str>, Option<Variable>)>,
}

impl Page {
    /// Reads a page; the error is for whoever wrote the file's name into the configuration.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let failed = |error| format!("cannot read {name}: {error}");
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > PAGE_BYTES_MAX {
            return Err(format!("{name} has {bytes} bytes; a page has at most {PAGE_BYTES_MAX}"));
        }
        let form = form_of(path).ok_or_else(|| format!("{name} ends in none of .html, .json and .txt"))?;
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text, form).map_err(|problem| format!("{name}: {problem}"))
    }

    /// Reads a page's text.
    pub fn parse(text: &str, form: Form) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let line = 1 + text.len().checked_sub(after.len()).and_then(|at| text.get(..at)).map_or(0, lines);
            let (name, behind) =
                after.split_once("}}").ok_or_else(|| format!("line {line}: `{{{{` without `}}}}`"))?;
            let name = name.trim();
            let known = VARIABLES.iter().find(|(known, _)| *known == name);
            let (_, variable) = known.ok_or_else(|| {
                let known = VARIABLES.map(|(known, _)| known).join(", ");
                format!("line {line}: there is no `{name}` to show, only {known}")
            })?;
            parts.push((before.into(), Some(*variable)));
            rest = behind;
        }
        parts.push((rest.into(), None));
        Ok(Self { form, parts })
    }

    /// What kind of file it is.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The page with its facts.
    pub fn render(&self, context: &Context<'_>) -> String {
        let mut out = String::with_capacity(self.parts.iter().map(|(text, _)| text.len() + 16).sum());
        for (text, variable) in &self.parts {
            out.push_str(text);
            if let Some(variable) = variable {
                put_escaped(&value(*variable, context), self.form, &mut out);
            }
        }
        out
    }
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn form_of(path: &Path) -> Option<Form> {
    match path.extension()?.to_ascii_lowercase().to_str()? {
        "html" | "htm" => Some(Form::Html),
        "json" => Some(Form::Json),
        "txt" => Some(Form::Text),
        _ => None,
    }
}

fn value<'a>(variable: Variable, context: &Context<'a>) -> std::borrow::Cow<'a, str> {
    match variable {
        Variable::Status => context.status.to_string().into(),
        Variable::Reason => context.reason.into(),
        Variable::Code => context.code.into(),
        Variable::Title => context.title.into(),
        Variable::Message => context.message.into(),
        Variable::Owner => context.owner.into(),
        Variable::RequestId => context.request_id.into(),
        Variable::App => context.app.into(),
        Variable::Host => context.host.into(),
        Variable::Client => context.client.into(),
        Variable::RetryAfter => context.retry_after_s.to_string().into(),
    }
}

/// Puts text where it means nothing but itself: between tags or in a quoted attribute, in a JSON string, on a line.
pub fn put_escaped(text: &str, form: Form, out: &mut String) {
    for character in text.chars() {
        match (form, character) {
            (Form::Html, '&') => out.push_str("&amp;"),
            (Form::Html, '<') => out.push_str("&lt;"),
            (Form::Html, '>') => out.push_str("&gt;"),
            (Form::Html, '"') => out.push_str("&quot;"),
            (Form::Html, '\'') => out.push_str("&#39;"),
            (Form::Json, '"' | '\\') => out.extend(['\\', character]),
            (Form::Json, control) if control.is_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            (_, control) if control.is_control() => out.push('\u{fffd}'),
            (_, plain) => out.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_stand_where_they_are_named() {
        let page = Page::parse("<p>{{code}} {{ title }}</p>\n{{status}}", Form::Html).expect("a page");
        let context = Context { status: 503, code: "H80", title: "Maintenance mode", ..Context::default() };
        assert_eq!(page.render(&context), "<p>H80 Maintenance mode</p>\n503");
        assert_eq!(Page::parse("plain", Form::Text).expect("a page").render(&context), "plain");
    }

    #[test]
    fn what_a_client_sent_stays_text_in_every_kind_of_file() {
        let host = "<b a='\"'>&\\\u{7}";
        let context = Context { host, ..Context::default() };
        let shown = |form| Page::parse("{{host}}", form).expect("a page").render(&context);
        assert_eq!(shown(Form::Html), "&lt;b a=&#39;&quot;&#39;&gt;&amp;\\\u{fffd}");
        assert_eq!(shown(Form::Text), "<b a='\"'>&\\\u{fffd}");
        let json = Page::parse("{\"host\": \"{{host}}\"}", Form::Json).expect("a page").render(&context);
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read["host"], host);
    }

    #[test]
    fn a_page_that_means_nothing_is_refused_by_its_line() {
        let problem = |text| Page::parse(text, Form::Html).expect_err("no page");
        assert!(
            problem("a\n{{ stauts }}").starts_with("line 2: there is no `stauts` to show, only status, ")
        );
        assert_eq!(problem("a\n\n{{ status }"), "line 3: `{{` without `}}`");
    }

    #[test]
    fn a_large_file_is_refused_and_one_of_another_kind() {
        let image = tempfile::NamedTempFile::with_suffix(".png").expect("a file");
        assert!(Page::read(image.path()).expect_err("no page").ends_with("none of .html, .json and .txt"));
        let file = tempfile::NamedTempFile::with_suffix(".html").expect("a file");
        file.as_file().set_len(PAGE_BYTES_MAX + 1).expect("a length");
        assert!(Page::read(file.path()).expect_err("too large").contains("at most 262144"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_put_into_json_comes_out_again(text in "\\PC*[\u{0}-\u{1f}\"\\\\]*") {
            let mut out = String::new();
            put_escaped(&text, Form::Json, &mut out);
            let read: String = serde_json::from_str(&format!("\"{out}\"")).expect("JSON");
            proptest::prop_assert_eq!(read, text);
        }
    }
}
