//! What the access log says of an exchange, read from the head that went to the server: nothing is copied aside for a
//! line that is mostly not written.

use crate::error::Error;
use groove_common::error::Classified;
use groove_common::net::Peer;
use groove_common::telemetry::Event;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A head as we wrote it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    head: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn of(head: &'a [u8]) -> Self {
        Self { head }
    }

    /// The value of the first field of that name.
    pub(super) fn field(&self, name: &str) -> Option<&'a [u8]> {
        // Behind the blank line may be the beginning of the body.
        let lines = self.head.split(|byte| *byte == b'\n').take_while(|line| line.trim_ascii() != b"");
        lines.skip(1).find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let found = line.get(..colon)?.eq_ignore_ascii_case(name.as_bytes());
            found.then(|| line.get(colon + 1..).unwrap_or_default().trim_ascii())
        })
    }

    fn text(bytes: Option<&[u8]>) -> Cow<'_, str> {
        String::from_utf8_lossy(bytes.unwrap_or_default())
    }

    /// The line of an exchange that is over.
    pub(super) fn event(&self, facts: &Facts<'_>) -> Event {
        let mut first_line = self.head.split(|byte| matches!(byte, b' ' | b'\r'));
        let (method, target) =
            (Self::text(first_line.next()), Self::text(facts.target.or(first_line.next())));
        let event = Event::new(format!("{method} {target}"))
            .with("app", facts.app)
            .with("host", Self::text(self.field("host")))
            .with("request_id", Self::text(self.field("x-request-id")))
            .show("client", Client { peer: facts.peer, behind: facts.client })
            .with("status", facts.status)
            .time("took_ms", facts.took);
        let event = match facts.client {
            Some(_) => event.show("peer", facts.peer),
            None => event,
        };
        let event = match self.field("traceparent").and_then(|parent| parent.get(3..35)) {
            Some(trace) => event.with("trace_id", Self::text(Some(trace))),
            None => event,
        };
        let event = match facts.endpoint {
            Some(endpoint) => event.with("endpoint", endpoint),
            None => event,
        };
        let event = if facts.user.is_empty() { event } else { event.with("user", facts.user) };
        match facts.error {
            Some(error) => failed(event, error),
            None => event,
        }
    }
}

/// Who asked, as the log has it.
pub(super) struct Client<'a> {
    pub(super) peer: &'a Peer,
    pub(super) behind: Option<IpAddr>,
}

impl Client<'_> {
    /// Without a port, as it is told to the client itself.
    pub(super) fn address(&self) -> String {
        let ip = self.behind.or_else(|| self.peer.ip().map(|ip| ip.to_canonical()));
        ip.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
    }
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.behind {
            Some(ip) => ip.fmt(f),
            None => self.peer.fmt(f),
        }
    }
}

/// Adds why an exchange failed.
pub(super) fn failed(event: Event, error: &Error) -> Event {
    let code = error.code();
    event
        .show("error", error)
        .with("error_kind", error.kind().label())
        .with("code", code.label())
        .with("owner", code.owner().label())
}

/// What is known at the end of an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) app: &'a str,
    pub(super) peer: &'a Peer,
    /// The client behind all trusted proxies, where that is not the peer.
    pub(super) client: Option<IpAddr>,
    pub(super) endpoint: Option<&'a str>,
    pub(super) status: u16,
    /// What was asked for, where that is not the head's: without what a client is known by.
    pub(super) target: Option<&'a [u8]>,
    /// Who was found to ask; empty for nobody.
    pub(super) user: &'a str,
    pub(super) took: Duration,
    pub(super) error: Option<&'a Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_their_case() {
        let record =
            Record::of(b"GET /a?b HTTP/1.1\r\nHost: shop.test\r\nx-REQUEST-id:  42 \r\n\r\nAccept: body\n");
        assert_eq!(record.field("host"), Some(b"shop.test".as_slice()));
        assert_eq!(record.field("X-Request-Id"), Some(b"42".as_slice()));
        assert_eq!(record.field("accept"), None);
        assert_eq!(record.field("GET /a?b HTTP/1.1\r"), None);
    }
}
