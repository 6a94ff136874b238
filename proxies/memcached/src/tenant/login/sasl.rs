//! Logging in with SASL PLAIN (RFC 4616) in memcached's binary protocol, before any other command is served.
//!
//! The packets are memcached's (`protocol_binary.h`): a header of 24 bytes with magic, opcode, the lengths of key,
//! extras and body, and an opaque that comes back.

use bytes::{Buf, Bytes, BytesMut};

use super::{Credentials, Heard};

/// The first byte of every request.
pub(super) const MAGIC: u8 = 0x80;

const RESPONSE_MAGIC: u8 = 0x81;
const HEADER_LEN: usize = 24;

const QUIT: u8 = 0x07;
const VERSION: u8 = 0x0b;
const LIST_MECHANISMS: u8 = 0x20;
const AUTHENTICATE: u8 = 0x21;
const STEP: u8 = 0x22;

const SUCCESS: u16 = 0x00;
const AUTH_ERROR: u16 = 0x20;

/// The only mechanism: the others need passwords that are stored as they are.
const MECHANISM: &[u8] = b"PLAIN";

/// A larger packet of somebody who has not logged in is not waited for.
const BODY_LEN_MAX: usize = 4096;

/// What is known of the request at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    opcode: u8,
    key_len: usize,
    extras_len: usize,
    body_len: usize,
    opaque: [u8; 4],
}

/// Reads requests from the front of a buffer, and remembers to which the answer is owed.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    opcode: u8,
    opaque: [u8; 4],
}

impl Decoder {
    /// Takes one request off the front of `input`; `None` if more bytes are needed.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Option<Heard> {
        if input.first().is_some_and(|byte| *byte != MAGIC) {
            return Some(Heard::Hangup(Bytes::new()));
        }
        let header = Header::read(input)?;
        (self.opcode, self.opaque) = (header.opcode, header.opaque);
        match header.opcode {
            LIST_MECHANISMS | AUTHENTICATE | STEP | QUIT if header.body_len <= BODY_LEN_MAX => (),
            VERSION if header.body_len == 0 => (),
            // memcached tells and hangs up too.
            _ => return Some(Heard::Hangup(self.wrong())),
        }
        if input.len() < HEADER_LEN + header.body_len {
            return None;
        }
        input.advance(HEADER_LEN);
        let body = input.split_to(header.body_len).freeze();
        Some(match header.opcode {
            QUIT => Heard::Hangup(Bytes::new()),
            VERSION => Heard::Told(self.answer(SUCCESS, env!("CARGO_PKG_VERSION").as_bytes())),
            LIST_MECHANISMS => Heard::Told(self.answer(SUCCESS, MECHANISM)),
            _ => match credentials(&header, &body) {
                Some(credentials) if header.opcode == AUTHENTICATE => Heard::Credentials(credentials),
                Some(_) | None => Heard::Told(self.wrong()),
            },
        })
    }

    /// The answer to credentials that are right.
    pub(super) fn right(&self) -> Bytes {
        self.answer(SUCCESS, b"Authenticated")
    }

    /// The answer to those that are not, and to all that may not be asked yet.
    pub(super) fn wrong(&self) -> Bytes {
        self.answer(AUTH_ERROR, b"Auth failure.")
    }

    fn answer(&self, status: u16, body: &[u8]) -> Bytes {
        let mut packet = Vec::with_capacity(HEADER_LEN + body.len());
        packet.extend_from_slice(&[RESPONSE_MAGIC, self.opcode, 0, 0, 0, 0]);
        packet.extend_from_slice(&status.to_be_bytes());
        packet.extend_from_slice(&u32::try_from(body.len()).unwrap_or_default().to_be_bytes());
        packet.extend_from_slice(&self.opaque);
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(body);
        packet.into()
    }
}

impl Header {
    fn read(input: &[u8]) -> Option<Self> {
        let [_, opcode, k1, k0, extras_len, _, _, _, b3, b2, b1, b0, opaque @ .., _, _, _, _, _, _, _, _] =
            input.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            opcode: *opcode,
            key_len: usize::from(u16::from_be_bytes([*k1, *k0])),
            extras_len: usize::from(*extras_len),
            body_len: usize::try_from(u32::from_be_bytes([*b3, *b2, *b1, *b0])).unwrap_or(usize::MAX),
            opaque: *opaque,
        })
    }
}

/// Is it about logging in, as far as the first two bytes tell?
pub(super) fn is_login(input: &[u8]) -> bool {
    matches!(input, [MAGIC, LIST_MECHANISMS | AUTHENTICATE | STEP, ..])
}

/// The key names the mechanism, the value is `[authorize-as] NUL user NUL password`. Whoever wants to be somebody
/// else than he proves to be is refused.
fn credentials(header: &Header, body: &Bytes) -> Option<Credentials> {
    let mechanism = body.get(header.extras_len..header.extras_len.checked_add(header.key_len)?)?;
    if mechanism != MECHANISM {
        return None;
    }
    let value = body.slice(header.extras_len + header.key_len..);
    let first = value.iter().position(|byte| *byte == 0)?;
    let second = first + 1 + value.get(first + 1..)?.iter().position(|byte| *byte == 0)?;
    let (user, password) = (value.slice(first + 1..second), value.slice(second + 1..));
    let authorize_as = value.slice(..first);
    let is_himself = authorize_as.is_empty() || authorize_as == user;
    (is_himself && !user.is_empty() && !password.contains(&0)).then_some(Credentials { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut packet = vec![MAGIC, opcode];
        packet.extend_from_slice(&u16::try_from(key.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&u32::try_from(key.len() + value.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(b"OPAQ");
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(key);
        packet.extend_from_slice(value);
        packet
    }

    fn heard(packet: &[u8]) -> (Option<Heard>, usize) {
        let mut input = BytesMut::from(packet);
        (Decoder::default().decode(&mut input), input.len())
    }

    #[test]
    fn plain_tells_who_it_is() {
        let credentials =
            Heard::Credentials(Credentials { user: Bytes::from("shop"), password: Bytes::from("se cret") });
        for value in [&b"\0shop\0se cret"[..], b"shop\0shop\0se cret"] {
            let packet = request(AUTHENTICATE, b"PLAIN", value);
            assert_eq!(heard(&packet), (Some(credentials.clone()), 0));
            for len in 0..packet.len() {
                assert_eq!(heard(&packet[..len]), (None, len));
            }
        }
    }

    #[test]
    fn out_of_order_or_out_of_shape_is_an_authentication_error() {
        let wrong = [
            request(AUTHENTICATE, b"PLAIN", b"shop secret"),
            request(AUTHENTICATE, b"PLAIN", b"root\0shop\0secret"),
            request(AUTHENTICATE, b"PLAIN", b"\0\0secret"),
            request(AUTHENTICATE, b"PLAIN", b""),
            request(AUTHENTICATE, b"CRAM-MD5", b"\0shop\0secret"),
            request(AUTHENTICATE, b"", b""),
            request(STEP, b"PLAIN", b"\0shop\0secret"),
        ];
        for packet in wrong {
            let (Some(Heard::Told(answer)), 0) = heard(&packet) else { panic!("{packet:?}") };
            assert_eq!((answer[0], &answer[6..8], &answer[12..16]), (0x81, &[0, 0x20][..], &b"OPAQ"[..]));
        }
        // The lengths lie: the key would end behind the body.
        let mut lie = request(AUTHENTICATE, b"PLAIN", b"");
        lie[3] = 200;
        assert!(matches!(heard(&lie), (Some(Heard::Told(_)), 0)));
    }

    #[test]
    fn nothing_else_is_served() {
        for opcode in (0..=u8::MAX).filter(|op| ![QUIT, VERSION, 0x20, 0x21, 0x22].contains(op)) {
            let Some(Heard::Hangup(answer)) = heard(&request(opcode, b"key", b"value")).0 else {
                panic!("{opcode}")
            };
            assert_eq!((answer[1], &answer[6..8]), (opcode, &[0, 0x20][..]));
        }
        assert_eq!(heard(&request(QUIT, b"", b"")).0, Some(Heard::Hangup(Bytes::new())));
        let (Some(Heard::Told(answer)), 0) = heard(&request(LIST_MECHANISMS, b"", b"")) else { panic!() };
        assert_eq!((&answer[..2], &answer[24..]), (&[0x81, 0x20][..], &b"PLAIN"[..]));
        assert_eq!(
            heard(b"get a\r\n").0,
            Some(Heard::Hangup(Bytes::new())),
            "another protocol in the middle"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut huge = request(AUTHENTICATE, b"PLAIN", b"");
        huge[8] = 0x7f;
        assert!(matches!(heard(&huge).0, Some(Heard::Hangup(_))));
    }
}
