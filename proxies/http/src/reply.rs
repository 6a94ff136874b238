//! Errors on the wire: short bodies that say what happened, in the form the client reads best.

use crate::auth::Answer;
use crate::edit::template::field_value;
use crate::error::Error;
use crate::wire::fields::tokens;
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
    /// One line of text.
    #[default]
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
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// Writes the whole reply that an error makes. `request_id` is empty before a request has one.
pub fn error(error: &Error, audience: Audience, request_id: &[u8], out: &mut BytesMut) {
    let status = error.status();
    let body = body(status, &error.client_message(), audience.form, &String::from_utf8_lossy(request_id));
    let reason = reason(status);
    out.put_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
    out.put_slice(format!("Content-Type: {}\r\n", audience.form.content_type()).as_bytes());
    out.put_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    out.put_slice(b"Cache-Control: no-store\r\n");
    if status == 405 {
        out.put_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
    }
    if let Error::Unauthenticated { challenges, .. } = error {
        for challenge in challenges {
            out.put_slice(format!("WWW-Authenticate: {challenge}\r\n").as_bytes());
        }
    }
    if status == 503 {
        out.put_slice(b"Retry-After: 1\r\n");
    }
    if !request_id.is_empty() {
        out.put_slice(b"X-Request-Id: ");
        out.put_slice(request_id);
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

fn body(status: u16, message: &str, form: Form, request_id: &str) -> String {
    match form {
        Form::Text => format!("{status} {}: {message}\n", reason(status)),
        Form::Json => {
            let object = serde_json::json!({ "status": status, "error": message, "request_id": request_id });
            format!("{object}\n")
        }
        Form::Html => format!(
            "<!doctype html>\n<title>{status} {reason}</title>\n<h1>{reason}</h1>\n<p>{message}</p>\n<p><small>{request_id}</small></p>\n",
            reason = reason(status),
            message = escaped(message),
            request_id = escaped(request_id),
        ),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
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
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Malformed;

    fn written(error_: &Error, audience: Audience) -> String {
        let mut out = BytesMut::new();
        error(error_, audience, b"42", &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn the_form_follows_accept() {
        for (accept, want) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Html),
            ("application/json", Form::Json),
            ("application/json; charset=utf-8, text/html", Form::Json),
            ("*/*", Form::Text),
            ("", Form::Text),
        ] {
            assert_eq!(Form::accepted(Some(accept.as_bytes())), want, "{accept}");
        }
        assert_eq!(Form::accepted(None), Form::Text);
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
    fn a_connection_that_ends_says_so() {
        let error = Error::Request(Malformed::LineEnd);
        let text = written(&error, Audience { close: true, ..Audience::default() });
        assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}
