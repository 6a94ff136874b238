//! Errors on the wire: short bodies that say what happened, in the form the client reads best.

use crate::auth::Answer;
use crate::edit::ReplyProgram;
use crate::edit::template::field_value;
use crate::error::Error;
use crate::signify::own;
use crate::signify::template::{Context, Page};
use crate::wire::fields::{FIELDS_MAX, tokens};
use crate::wire::render::{self, Leaving};
use crate::wire::{Edits, Fields, Limits, ReplyHead};
use bytes::{BufMut, BytesMut};
use groove_common::error::Classified;

/// What is known of the request that a reply answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audience {
    /// Which form it reads.
    pub form: Form,
    /// It was HEAD: the body is announced, not sent.
    pub is_head: bool,
    /// It speaks HTTP/1.0.
    pub is_http10: bool,
    /// The connection ends after the reply.
    pub close: bool,
}

/// The form of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Whatever there is: it did not say. Ours is one line of text, a page is of any kind.
    #[default]
    Any,
    /// One line of text.
    Text,
    /// A page for people.
    Html,
    /// An object for programs.
    Json,
}

impl Form {
    /// The first form that an Accept header names.
    pub fn accepted(accept: Option<&[u8]>) -> Self {
        tokens(accept.unwrap_or_default())
            .find_map(|range| {
                match range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii() {
                    b"text/html" | b"application/xhtml+xml" => Some(Self::Html),
                    b"application/json" | b"application/problem+json" => Some(Self::Json),
                    b"text/plain" => Some(Self::Text),
                    _ => None,
                }
            })
            .unwrap_or_default()
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Any | Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// The header that carries the code of what happened.
pub const CODE_HEADER: &str = "X-Groove-Code";

/// What is said to a client whose request was not served.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// What happened.
    pub error: &'a Error,
    /// Empty where no request has been read.
    pub request_id: &'a str,
    /// The app's name; empty if none has this host.
    pub app: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// What the operator wants shown.
    pub page: Option<&'a Page>,
}

impl<'a> Notice<'a> {
    /// Of a failure about whose request nothing is known.
    pub fn of(error: &'a Error) -> Self {
        Self { error, request_id: "", app: "", host: "", client: "", page: None }
    }

    fn context(&self, message: &'a str) -> Context<'a> {
        let (status, code) = (self.error.status(), self.error.code());
        Context {
            status,
            reason: reason(status),
            code: code.label(),
            title: code.title(),
            message,
            owner: code.owner().label(),
            request_id: self.request_id,
            app: self.app,
            host: self.host,
            client: self.client,
            retry_after_s: self.error.retry_after_s().unwrap_or(0),
        }
    }
}

/// Writes the whole reply that an error makes.
pub fn error(notice: &Notice<'_>, audience: Audience, out: &mut BytesMut) {
    let message = notice.error.client_message();
    let context = notice.context(&message);
    // A page of another kind than the client reads is of no use to it.
    let page = notice.page.filter(|page| audience.form == Form::Any || audience.form == page.form());
    let (form, body) = match page {
        Some(page) => (page.form(), page.render(&context)),
        None => (audience.form, body(&context, audience.form)),
    };
    out.put_slice(format!("HTTP/1.1 {} {}\r\n", context.status, context.reason).as_bytes());
    out.put_slice(format!("Content-Type: {}\r\n", form.content_type()).as_bytes());
    out.put_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    out.put_slice(format!("{CODE_HEADER}: {}\r\n", context.code).as_bytes());
    out.put_slice(b"Cache-Control: no-store\r\n");
    if context.status == 405 {
        out.put_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
    }
    if let Some(seconds) = notice.error.retry_after_s() {
        out.put_slice(format!("Retry-After: {seconds}\r\n").as_bytes());
    }
    if let Error::Unauthenticated { challenges, .. } = notice.error {
        for challenge in challenges {
            out.put_slice(format!("WWW-Authenticate: {challenge}\r\n").as_bytes());
        }
    }
    if !notice.request_id.is_empty() {
        out.put_slice(b"X-Request-Id: ");
        out.put_slice(notice.request_id.as_bytes());
        out.put_slice(b"\r\n");
    }
    if audience.close {
        out.put_slice(b"Connection: close\r\n");
    } else if audience.is_http10 {
        out.put_slice(b"Connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
    if !audience.is_head {
        out.put_slice(body.as_bytes());
    }
}

/// Writes a whole reply that was made for a request without asking a server of its app.
pub fn answer(answer: &Answer, audience: Audience, request_id: &[u8], out: &mut BytesMut) {
    let reason = match answer.status {
        302 => "Found",
        status => reason(status),
    };
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", answer.status).as_bytes());
    let own: &[(&str, &[u8])] = &[("X-Request-Id", request_id)];
    let own = own.iter().filter(|(_, value)| !value.is_empty()).copied();
    let theirs = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    for (name, value) in theirs.chain(own).filter(|(_, value)| field_value(value).is_some()) {
        out.put_slice(name.as_bytes());
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
    if !matches!(answer.status, 204 | 304) {
        out.put_slice(format!("Content-Length: {}\r\n", answer.body.len()).as_bytes());
    }
    if audience.close {
        out.put_slice(b"Connection: close\r\n");
    } else if audience.is_http10 {
        out.put_slice(b"Connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
    if !audience.is_head && !matches!(answer.status, 204 | 304) {
        out.put_slice(&answer.body);
    }
}

/// Edits a whole reply of ours as those of servers are edited.
pub fn edit(out: &mut BytesMut, edits: &Edits, program: Option<&ReplyProgram<'_>>, fields: &mut Fields) {
    let Some(end) = memchr::memmem::find(out, b"\r\n\r\n").map(|end| end + 4) else { return };
    let raw = out.get(..end).unwrap_or_default();
    // What is of ours is within all bounds.
    let limits = Limits { fields: FIELDS_MAX, ..Limits::default() };
    let Ok(head) = ReplyHead::parse(raw, true, &limits, fields) else { return };
    let made = program.map(|program| program.edits(&head, edits));
    let connection = head.fields.connection;
    let leaving =
        Leaving { close: connection.close, say_keep_alive: connection.keep_alive, ..Leaving::default() };
    let mut edited = BytesMut::new();
    render::reply(&head, &leaving, made.as_ref().unwrap_or(edits), &mut edited);
    edited.put_slice(out.get(end..).unwrap_or_default());
    *out = edited;
}

/// As [`edit`], for a failure: whatever is said of the app's replies, nobody is to keep it.
pub fn edit_failure(
    out: &mut BytesMut,
    edits: &Edits,
    program: Option<&ReplyProgram<'_>>,
    fields: &mut Fields,
) {
    edit(out, edits, program, fields);
    let none = std::iter::empty::<&str>();
    edit(out, &Edits::new(none, [("Cache-Control", "no-store")], []), None, fields);
}

fn body(context: &Context<'_>, form: Form) -> String {
    let Context { status, reason, code, title, message, owner, request_id, .. } = context;
    match form {
        Form::Any | Form::Text => format!("{status} {reason}: {message} ({code})\n"),
        Form::Json => {
            let object = serde_json::json!({
                "status": status, "error": message, "code": code, "title": title, "owner": owner,
                "app": context.app, "request_id": request_id,
            });
            format!("{object}\n")
        }
        Form::Html => own::page(context),
    }
}

/// The reason phrase of the statuses that we say ourselves.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Malformed;

    fn written(error_: &Error, audience: Audience) -> String {
        let mut out = BytesMut::new();
        error(&Notice { request_id: "42", ..Notice::of(error_) }, audience, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn the_form_follows_accept() {
        for (accept, want) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Html),
            ("application/json", Form::Json),
            ("application/json; charset=utf-8, text/html", Form::Json),
            ("text/plain", Form::Text),
            ("*/*", Form::Any),
            ("", Form::Any),
        ] {
            assert_eq!(Form::accepted(Some(accept.as_bytes())), want, "{accept}");
        }
        assert_eq!(Form::accepted(None), Form::Any);
    }

    #[test]
    fn the_length_is_the_bodys_and_head_gets_none() {
        for form in [Form::Text, Form::Html, Form::Json] {
            let text = written(&Error::Unanswered, Audience { form, ..Audience::default() });
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
            let text = written(&Error::Unanswered, Audience { form, is_head: true, ..Audience::default() });
            assert!(text.ends_with("\r\n\r\n"), "{text}");
        }
    }

    #[test]
    fn what_a_client_sent_is_escaped_and_what_is_ours_stays_ours() {
        let host = Error::UnknownHost("<script>".to_owned());
        let text = written(&host, Audience { form: Form::Html, ..Audience::default() });
        assert!(!text.contains("<script>"), "{text}");
        let down = Error::Unreachable { address: "10.1.2.3:80".into(), reason: "refused".into() };
        let text = written(&down, Audience::default());
        assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && !text.contains("10.1.2.3"), "{text}");
    }

    #[test]
    fn every_form_says_the_code_and_whose_it_is() {
        let said = |form| written(&Error::Unanswered, Audience { form, ..Audience::default() });
        assert!(said(Form::Any).contains("\r\nX-Groove-Code: H13\r\n"), "a header");
        assert!(said(Form::Any).ends_with("an answer (H13)\n"), "{}", said(Form::Any));
        assert!(said(Form::Html).contains("This is the app's to mend."), "{}", said(Form::Html));
        let json = said(Form::Json);
        let body: serde_json::Value =
            serde_json::from_str(json.split("\r\n\r\n").last().unwrap_or_default()).expect("JSON");
        assert_eq!(
            (&body["code"], &body["owner"], &body["request_id"]),
            (&"H13".into(), &"app".into(), &"42".into())
        );
    }

    #[test]
    fn a_page_is_shown_to_those_who_read_its_kind() {
        let page = Page::parse("<p>{{code}}</p>", Form::Html).expect("a page");
        let said = |form| {
            let mut out = BytesMut::new();
            let notice = Notice { page: Some(&page), ..Notice::of(&Error::Unanswered) };
            error(&notice, Audience { form, ..Audience::default() }, &mut out);
            String::from_utf8(out.to_vec()).expect("text")
        };
        for form in [Form::Any, Form::Html] {
            assert!(said(form).ends_with("\r\n\r\n<p>H13</p>"), "{}", said(form));
            assert!(said(form).contains("Content-Type: text/html"), "{}", said(form));
        }
        assert!(said(Form::Json).contains("\"H13\""), "{}", said(Form::Json));
        assert!(said(Form::Text).contains("an answer (H13)"), "{}", said(Form::Text));
    }

    #[test]
    fn a_connection_that_ends_says_so() {
        let error = Error::Request(Malformed::LineEnd);
        let text = written(&error, Audience { close: true, ..Audience::default() });
        assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}
