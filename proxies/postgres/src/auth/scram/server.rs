//! The server's side: one challenge, one verdict.

use aws_lc_rs::constant_time;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{Detail, END_POINT, Key, Keys, SaltedKeys, ScramError, Verifier, mac, sha256, xor};

/// What of channel binding there is between the client and us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel<'a> {
    /// No TLS, or a certificate without a hash: `-PLUS` was not offered.
    Unbound,
    /// It was offered, and the client chose the mechanism without it.
    Declined,
    /// The client chose `-PLUS`; this is our certificate's hash.
    Bound(&'a [u8]),
}

/// The server's side, after its challenge.
pub struct Server {
    verifier: Verifier,
    /// What `c=` has to be.
    binding: String,
    is_bound: bool,
    nonce: String,
    first_bare: String,
    challenge: String,
}

/// A client that has proven to know the password.
pub struct Proven {
    /// Our own proof, which ends the exchange.
    pub proof: String,
    /// What the client derived: with it we prove the same to a server that keeps the same verifier.
    pub keys: SaltedKeys,
}

impl Server {
    /// Answers the client's first message. `nonce` is ours, printable and without commas.
    pub fn challenge(
        verifier: Verifier,
        nonce: &str,
        first: &[u8],
        channel: Channel<'_>,
    ) -> Result<(Server, String), ScramError> {
        let mut reader = Reader::new(first)?;
        let binding = gs2(&mut reader, channel)?;
        // What the client says it binds to is the first part of what `c=` has to be.
        let header = reader.read_so_far().to_owned();
        if reader.next() == b'm' {
            return Err(ScramError::Extension);
        }
        let bare = reader.rest.to_owned();
        reader.attribute('n')?;
        let client_nonce = reader.attribute('r')?;
        if !client_nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ScramError::NoncePrintable);
        }
        let nonce = format!("{client_nonce}{nonce}");
        while !reader.rest.is_empty() {
            reader.any_attribute()?;
        }
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations.0);
        let server = Server {
            verifier,
            binding: BASE64.encode([header.as_bytes(), binding].concat()),
            is_bound: matches!(channel, Channel::Bound(_)),
            nonce,
            first_bare: bare,
            challenge: challenge.clone(),
        };
        Ok((server, challenge))
    }

    /// Checks the client's proof and gives ours.
    pub fn finish(self, last: &[u8]) -> Result<Proven, ScramError> {
        let mut reader = Reader::new(last)?;
        if reader.attribute('c')? != self.binding {
            return Err(if self.is_bound { ScramError::BindingCheck } else { ScramError::BindingAttribute });
        }
        let nonce = reader.attribute('r')?;
        let (without_proof, proof) = loop {
            let before = reader.read_so_far();
            if let ('p', value) = reader.any_attribute()? {
                break (before, value);
            }
        };
        let proof = BASE64.decode(proof).ok().and_then(|proof| Key::try_from(proof).ok());
        let proof = proof.ok_or(ScramError::Malformed(Detail::Proof))?;
        if !reader.rest.is_empty() {
            return Err(ScramError::Malformed(Detail::Garbage));
        }
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        // The comma before the proof is not signed.
        let without_proof = without_proof.strip_suffix(',').unwrap_or(without_proof);
        let message = format!("{},{},{without_proof}", self.first_bare, self.challenge);
        let signature = mac(&self.verifier.stored_key, message.as_bytes());
        let client = xor(proof, signature);
        constant_time::verify_slices_are_equal(&sha256(&client), &self.verifier.stored_key)
            .map_err(|_| ScramError::Proof)?;
        let Verifier { server_key: server, salt, iterations, .. } = self.verifier;
        let proof = format!("v={}", BASE64.encode(mac(&server, message.as_bytes())));
        Ok(Proven { proof, keys: SaltedKeys { salt, iterations, keys: Keys { client, server } } })
    }
}

/// Reads over the GS2 header, and gives what it is bound to.
fn gs2<'a>(reader: &mut Reader<'_>, channel: Channel<'a>) -> Result<&'a [u8], ScramError> {
    let binding: &[u8] = match (reader.next(), channel) {
        (b'n' | b'y', Channel::Bound(_)) => return Err(ScramError::Malformed(Detail::BindingMissing)),
        (b'y', Channel::Declined) => return Err(ScramError::BindingNegotiation),
        (b'n' | b'y', Channel::Declined | Channel::Unbound) => {
            reader.skip();
            if reader.next() != b',' {
                return Err(ScramError::Malformed(Detail::Comma(reader.next())));
            }
            reader.skip();
            &[]
        }
        (b'p', Channel::Bound(end_point)) => {
            let kind = reader.attribute('p')?;
            if kind != END_POINT {
                return Err(ScramError::BindingType(sanitize(kind)));
            }
            end_point
        }
        (b'p', Channel::Declined | Channel::Unbound) => {
            return Err(ScramError::Malformed(Detail::BindingUnasked));
        }
        (other, _) => return Err(ScramError::Malformed(Detail::Flag(other))),
    };
    match reader.next() {
        b',' => reader.skip(),
        b'a' => return Err(ScramError::Authzid),
        other => return Err(ScramError::Malformed(Detail::FirstAttribute(other))),
    }
    Ok(binding)
}

/// As PostgreSQL's `sanitize_str`: 30 bytes at the most, and a question mark for what is not printable.
fn sanitize(text: &str) -> String {
    let shown = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { '?' };
    text.bytes().take(30).map(shown).collect()
}

/// A message, from its start to its end.
struct Reader<'a> {
    whole: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn new(message: &'a [u8]) -> Result<Reader<'a>, ScramError> {
        if message.is_empty() {
            return Err(ScramError::Malformed(Detail::Empty));
        }
        let text = std::str::from_utf8(message).ok().filter(|text| !text.contains('\0'));
        let whole = text.ok_or(ScramError::Malformed(Detail::Length))?;
        Ok(Reader { whole, rest: whole })
    }

    /// The byte that comes next; 0 at the end, as in C.
    fn next(&self) -> u8 {
        self.rest.as_bytes().first().copied().unwrap_or(0)
    }

    /// Passes over one character.
    fn skip(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
    }

    fn read_so_far(&self) -> &'a str {
        self.whole.get(..self.whole.len() - self.rest.len()).unwrap_or_default()
    }

    /// The value of the attribute that has to come next.
    fn attribute(&mut self, expected: char) -> Result<&'a str, ScramError> {
        let Some(rest) = self.rest.strip_prefix(expected) else {
            return Err(ScramError::Malformed(Detail::Attribute { expected, found: self.next() }));
        };
        self.value(expected, rest)
    }

    /// Whichever attribute comes next.
    fn any_attribute(&mut self) -> Result<(char, &'a str), ScramError> {
        let mut chars = self.rest.chars();
        match chars.next() {
            None => Err(ScramError::Malformed(Detail::End)),
            Some(letter) if letter.is_ascii_alphabetic() => Ok((letter, self.value(letter, chars.as_str())?)),
            Some(_) => Err(ScramError::Malformed(Detail::NoAttribute(self.next()))),
        }
    }

    fn value(&mut self, attribute: char, rest: &'a str) -> Result<&'a str, ScramError> {
        let rest = rest.strip_prefix('=').ok_or(ScramError::Malformed(Detail::Equals(attribute)))?;
        let (value, rest) = rest.split_once(',').unwrap_or((rest, ""));
        self.rest = rest;
        Ok(value)
    }
}
