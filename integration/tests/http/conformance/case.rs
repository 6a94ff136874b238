//! One case: what is sent, and what has to come of it.

/// What has to come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This status, the connection closed, and no server heard of it.
    Refused(u16),
    /// This status of the proxy's own, the connection stays, and no server heard of it.
    Answered(u16),
    /// A server got it, once, and the connection stays.
    Served,
    /// As that, but the connection ends.
    Closes,
    /// Two requests, both served.
    Twice,
    /// The first is served, the second refused, the connection closed.
    ThenRefused(u16),
}

/// A request, or whatever a client may send.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) outcome: Outcome,
    /// What must stand in the head that the server gets.
    pub(super) sees: &'static str,
    /// What must not.
    pub(super) hides: &'static str,
}

impl Case {
    pub(super) fn sees(mut self, text: &'static str) -> Self {
        self.sees = text;
        self
    }

    pub(super) fn hides(mut self, text: &'static str) -> Self {
        self.hides = text;
        self
    }

    /// What goes over the wire.
    pub(super) fn bytes(&self) -> Vec<u8> {
        expand(self.text)
    }
}

fn case(class: &'static str, name: &'static str, text: &'static str, outcome: Outcome) -> Case {
    Case { class, name, text, outcome, sees: "", hides: "" }
}

pub(super) fn refused(class: &'static str, name: &'static str, text: &'static str, status: u16) -> Case {
    case(class, name, text, Outcome::Refused(status))
}

pub(super) fn answered(class: &'static str, name: &'static str, text: &'static str, status: u16) -> Case {
    case(class, name, text, Outcome::Answered(status))
}

pub(super) fn served(class: &'static str, name: &'static str, text: &'static str) -> Case {
    case(class, name, text, Outcome::Served)
}

pub(super) fn closes(class: &'static str, name: &'static str, text: &'static str) -> Case {
    case(class, name, text, Outcome::Closes)
}

pub(super) fn twice(class: &'static str, name: &'static str, text: &'static str) -> Case {
    case(class, name, text, Outcome::Twice)
}

pub(super) fn then_refused(class: &'static str, name: &'static str, text: &'static str, status: u16) -> Case {
    case(class, name, text, Outcome::ThenRefused(status))
}

/// Replaces the words in braces and makes each character a byte.
pub(super) fn expand(text: &str) -> Vec<u8> {
    let chunked = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n";
    let text = text
        .replace("{get}", "GET / HTTP/1.1\r\nHost: shop.test\r\n")
        .replace("{post}", "POST / HTTP/1.1\r\nHost: shop.test\r\n")
        .replace("{chunked}", chunked);
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, (word, count, after))) = next_repeat(rest) {
        out.push_str(before);
        if word == "hints" {
            out.push_str(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count));
        } else if word == "a" {
            out.push_str(&"a".repeat(count));
        } else {
            (0..count).for_each(|number| out.push_str(&format!("X-{number}: a\r\n")));
        }
        rest = after;
    }
    out.push_str(rest);
    out.chars().map(|it| u8::try_from(u32::from(it)).unwrap()).collect()
}

/// The text before the first `{word*count}`, the two, and what follows.
fn next_repeat(text: &str) -> Option<(&str, (&str, usize, &str))> {
    let star = text.find('*').filter(|star| text[..*star].contains('{'))?;
    let open = text[..star].rfind('{')?;
    let close = star + text[star..].find('}')?;
    let count = text[star + 1..close].parse().ok()?;
    Some((&text[..open], (&text[open + 1..star], count, &text[close + 1..])))
}
