//! docs/http-conformance.md.

use super::case::{Case, Outcome};
use super::observe::{Behaviour, Relayed};
use super::replies::{Fate, Reply};

/// More of a message than this says no more.
const SHOWN_MAX: usize = 110;

pub(super) struct Row {
    class: String,
    name: String,
    sent: String,
    required: String,
    ours: String,
    others: Vec<String>,
}

impl Row {
    pub(super) fn request(case: &Case, ours: &Behaviour, others: Vec<String>) -> Self {
        let required = match case.outcome {
            Outcome::Refused(status) => format!("{status}, closed"),
            Outcome::Answered(status) => format!("{status}"),
            Outcome::Served => "200, forwarded".to_owned(),
            Outcome::Closes => "200, closed, forwarded".to_owned(),
            Outcome::Twice => "200, 200, forwarded as 2".to_owned(),
            Outcome::ThenRefused(status) => format!("200, {status}, closed, forwarded"),
        };
        let required = match (case.sees, case.hides) {
            ("", "") => required,
            (sees, "") => format!("{required}; with `{sees}`"),
            (_, hides) => format!("{required}; without `{hides}`"),
        };
        Self {
            class: case.class.to_owned(),
            name: case.name.to_owned(),
            sent: shown(case.text),
            required,
            ours: ours.to_string(),
            others,
        }
    }

    pub(super) fn reply(reply: &Reply, ours: &Relayed, others: Vec<String>) -> Self {
        let required = match reply.fate {
            Fate::Gateway(code) => format!("502 {code}, server closed"),
            Fate::Relayed(status, true) => format!("{status}, server kept"),
            Fate::Relayed(status, false) => format!("{status}, server closed"),
            Fate::Cut(status) => format!("{status}, cut, server closed"),
        };
        let sent = shown(reply.text) + if reply.ends { " and the end" } else { "" };
        let sent = if reply.method == "HEAD" { format!("to HEAD: {sent}") } else { sent };
        Self {
            class: "Replies".to_owned(),
            name: reply.name.to_owned(),
            sent,
            required,
            ours: ours.to_string(),
            others,
        }
    }

    /// The part of the row that follows from this source.
    pub(super) fn ours(&self) -> String {
        format!("| {} | {} | {} | {} |", self.name, self.sent, self.required, self.ours)
    }
}

/// A message as a table's cell.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '|' => out.push_str("\\|"),
            other if other.is_control() || !other.is_ascii() => {
                out.push_str(&format!("\\x{:02x}", u32::from(other)))
            }
            other => out.push(other),
        }
    }
    if out.len() > SHOWN_MAX {
        out.truncate(SHOWN_MAX);
        out.push_str("...");
    }
    if out.is_empty() { "nothing".to_owned() } else { format!("`` {out} ``") }
}

pub(super) fn document(rows: &[Row], versions: &[String; 2]) -> String {
    let requests = rows.iter().filter(|row| row.class != "Replies").count();
    let mut out = format!(
        "# Malformed and ambiguous HTTP/1.1\n\n\
         {requests} requests and {} replies over raw sockets, what has to come of each, and what came of it: groove-http \
         as this source has it (a test holds it to that), {} and {} as Debian ships them, each with the configuration \
         that its documentation has for a proxy of one server. Written by `make conformance`.\n\n\
         `{{get}}` and `{{post}}` are `GET / HTTP/1.1` and `POST / HTTP/1.1` with `Host: shop.test`; `{{chunked}}` is \
         `{{post}}` with `Transfer-Encoding: chunked`; `{{a*9000}}` is so many letters, `{{fields*200}}` so many fields. \
         *forwarded* says that a server got it, *closed* that the client's connection was closed within 0.4 s, *no reply* \
         that nothing had come by then, *server closed* that the proxy had closed the server's connection. A proxy may be right to do otherwise than we require: where a message is \
         ambiguous, we require that it is refused.\n",
        rows.len() - requests,
        versions[0],
        versions[1],
    );
    let mut class = "";
    for row in rows {
        if row.class != class {
            class = &row.class;
            out.push_str(&format!(
                "\n## {class}\n\n| case | sent | required | groove-http | {} | {} |\n|---|---|---|---|---|---|\n",
                versions[0], versions[1],
            ));
        }
        out.push_str(&format!("{} {} |\n", row.ours(), row.others.join(" | ")));
    }
    out
}
