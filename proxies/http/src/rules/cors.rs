//! The CORS protocol of the Fetch standard: preflights are answered, replies say who may read them.

use super::answer::{self, Manner};
use crate::config;
use crate::wire::{Edits, RequestHead};
use bytes::{BufMut, BytesMut};

/// What pages of other origins may do.
#[derive(Debug)]
pub struct Cors {
    /// Who may ask, and the edits that tell them so.
    origins: Vec<(Box<[u8]>, Edits)>,
    any: Option<Edits>,
    /// For all others: that another origin would get another reply.
    none: Edits,
    /// Header lines of a preflight's answer, for those who may ask.
    preflight: Box<[u8]>,
    /// Header lines of the proxy's own replies to them, beside the one that names them.
    own: Box<[u8]>,
}

impl Cors {
    /// As configured, after the edits that all replies get.
    pub fn new(cors: &config::Cors, reply: &Edits) -> Self {
        let allow = |origin: &str| {
            let mut set = vec![("Access-Control-Allow-Origin", origin.to_owned())];
            if cors.allow_credentials {
                set.push(("Access-Control-Allow-Credentials", "true".to_owned()));
            }
            if !cors.expose_headers.is_empty() {
                set.push(("Access-Control-Expose-Headers", cors.expose_headers.join(", ")));
            }
            let vary = (origin != "*").then(|| ("Vary", "Origin".to_owned()));
            // What the app itself says of it does not count any more.
            let own = ["Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"];
            reply.then(&Edits::new(own, set, vary))
        };
        let named = cors.allow_origins.iter().filter(|origin| *origin != "*");
        let any = cors.allow_origins.iter().any(|origin| origin == "*").then(|| allow("*"));
        let refused = ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"];
        let none = Edits::new(refused, [], [("Vary", "Origin".to_owned())]);
        let mut own = "Vary: Origin\r\n".to_owned();
        if cors.allow_credentials {
            own.push_str("Access-Control-Allow-Credentials: true\r\n");
        }
        if !cors.expose_headers.is_empty() {
            own.push_str(&format!("Access-Control-Expose-Headers: {}\r\n", cors.expose_headers.join(", ")));
        }
        let mut preflight = format!("Access-Control-Max-Age: {}\r\n", cors.max_age.get().as_secs());
        for (name, list) in [
            ("Access-Control-Allow-Methods", &cors.allow_methods),
            ("Access-Control-Allow-Headers", &cors.allow_headers),
        ] {
            if !list.is_empty() {
                preflight.push_str(&format!("{name}: {}\r\n", list.join(", ")));
            }
        }
        Self {
            origins: named.map(|origin| (origin.as_bytes().into(), allow(origin))).collect(),
            any,
            none: reply.then(&none),
            preflight: preflight.into_bytes().into(),
            own: own.into_bytes().into(),
        }
    }

    /// The edits of a reply to a request.
    pub fn edits(&self, head: &RequestHead<'_>) -> &Edits {
        self.allowed(head).unwrap_or(&self.none)
    }

    /// Whether a request only asks what may be asked.
    pub fn is_preflight(&self, head: &RequestHead<'_>) -> bool {
        head.method == b"OPTIONS"
            && origin(head).is_some()
            && field(head, b"access-control-request-method").is_some()
    }

    /// Writes the answer to a preflight.
    pub fn write(&self, head: &RequestHead<'_>, manner: Manner, out: &mut BytesMut) {
        answer::begin(204, out);
        match self.allowed(head) {
            Some(edits) => {
                out.put_slice(&self.preflight);
                answer::end(204, &[], false, edits.lines(), manner, out);
            }
            None => answer::end(204, &[], false, self.none.lines(), manner, out),
        }
    }

    /// Header lines for a reply of the proxy's own, so that a page that may read the app's can read why there is none.
    pub fn lines(&self, origin: Option<&[u8]>) -> Vec<u8> {
        match origin.filter(|origin| self.allows(origin).is_some()) {
            Some(origin) => [b"Access-Control-Allow-Origin: ", origin, b"\r\n", &self.own].concat(),
            None => b"Vary: Origin\r\n".to_vec(),
        }
    }

    fn allowed(&self, head: &RequestHead<'_>) -> Option<&Edits> {
        self.allows(origin(head)?)
    }

    fn allows(&self, origin: &[u8]) -> Option<&Edits> {
        let named = self.origins.iter().find(|(allowed, _)| **allowed == *origin);
        named.map(|(_, edits)| edits).or(self.any.as_ref())
    }
}

/// Whose page asks, as its browser says.
pub fn origin<'h>(head: &RequestHead<'h>) -> Option<&'h [u8]> {
    field(head, b"origin")
}

fn field<'h>(head: &RequestHead<'h>, name: &[u8]) -> Option<&'h [u8]> {
    let found = head.fields.iter().find(|field| field.name.of(head.raw).eq_ignore_ascii_case(name))?;
    Some(found.value.of(head.raw))
}
