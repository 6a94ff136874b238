//! What the access log says of an exchange, read from the head that went to the server: nothing is copied aside for a
//! line that is mostly not written.

use crate::error::Error;
use groove_common::error::Classified;
use groove_common::ids::Address;
use groove_common::net::Peer;
use groove_common::telemetry::Event;
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
        let mut fields = self.fields();
        fields.find_map(|(found, value)| found.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }

    /// Names and values; of bytes that are no head, what looks like them.
    fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.head;
        let mut lines = std::iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            let (line, after) = rest.split_at_checked(end)?;
            rest = after;
            (!line.is_empty()).then_some(line)
        });
        lines.next();
        // Behind the blank line may be the beginning of the body.
        lines.take_while(|line| !line.trim_ascii().is_empty()).filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            Some((name, value.get(1..).unwrap_or_default().trim_ascii()))
        })
    }

    /// The line of an exchange that is over.
    pub(super) fn event(&self, facts: &Facts<'_>) -> Event {
        let line_end = memchr::memchr(b'\r', self.head).unwrap_or(self.head.len());
        let (method, rest) = split_at(b' ', self.head.get(..line_end).unwrap_or_default());
        let target = facts.target.unwrap_or_else(|| split_at(b' ', rest).0);
        let [host, request_id, parent] = self.logged_fields();
        let event = Event::asked(method, target)
            .text("app", facts.app.as_bytes())
            .text("host", host.unwrap_or_default())
            .text("request_id", request_id.unwrap_or_default());
        let event = match (facts.client, facts.peer) {
            (None, Peer::Ip(address)) => event.socket("client", *address),
            (behind, peer) => event.show("client", Client { peer, behind }),
        };
        let event = event
            .text("protocol", facts.protocol.as_bytes())
            .number("status", facts.status.into())
            .time("took_ms", facts.took);
        let event = match facts.client {
            Some(_) => event.show("peer", facts.peer),
            None => event,
        };
        let event = match parent.and_then(|parent| parent.get(3..35)) {
            Some(trace) => event.text("trace_id", trace),
            None => event,
        };
        let event = match facts.endpoint {
            Some(endpoint) => event.address("endpoint", endpoint),
            None => event,
        };
        let event = if facts.user.is_empty() { event } else { event.text("user", facts.user.as_bytes()) };
        match facts.error {
            Some(error) => failed(event, error),
            None => event,
        }
    }

    /// Host, X-Request-Id and traceparent, found on one way through the head.
    fn logged_fields(&self) -> [Option<&'a [u8]>; 3] {
        let mut found = [None; 3];
        for (name, value) in self.fields() {
            let (at, known) = match name.len() {
                4 => (0, "host"),
                12 => (1, "x-request-id"),
                11 => (2, "traceparent"),
                _ => continue,
            };
            if let Some(place) = found.get_mut(at)
                && place.is_none()
                && name.eq_ignore_ascii_case(known.as_bytes())
            {
                *place = Some(value);
            }
        }
        found
    }
}

/// What stands before and behind the first of these bytes.
fn split_at(byte: u8, bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(byte, bytes).unwrap_or(bytes.len());
    let (before, after) = bytes.split_at_checked(at).unwrap_or_default();
    (before, after.get(1..).unwrap_or_default())
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
    pub(super) endpoint: Option<&'a Address>,
    /// What the client speaks, as `HTTP/2`.
    pub(super) protocol: &'static str,
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
        let record =
            Record::of(b"GET / HTTP/1.1\r\nhost: a\r\nHost: b\r\nX-Request-Id: 1\r\n\r\ntraceparent: no\n");
        assert_eq!(record.logged_fields(), [Some(b"a".as_slice()), Some(b"1"), None]);
        assert_eq!(Record::of(b"no head").logged_fields(), [None; 3]);
    }
}
