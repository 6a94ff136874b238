//! The first that a replica says: whether it does what it was asked, or may as well not have been asked.

use crate::session::state::is_outdated;
use crate::wire::backend::error_field;
use crate::wire::{HEADER, Header};

/// What the beginning of a replica's answer comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstWord {
    /// Nothing yet. Up to here are answers to what the proxy itself has asked.
    Undecided(usize),
    /// There is something of it: the client gets it.
    Stands,
    /// An error came first.
    Fails(Why),
}

/// Why a replica fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It goes away.
    Farewell,
    /// It takes no writes, and this is one, or something else that is only done where they are taken.
    IsNoRead,
    /// There are no serializable transactions on it, and the session's are, by a default that nobody has told us of.
    IsSerializable,
    /// It may come of where the statement ran: of what the replica replays, or has not replayed yet.
    IsReplica,
    /// It would fail elsewhere, too.
    Itself,
}

/// What a server owes the proxy itself before it owes the client anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owed {
    /// The end of our own query.
    pub ready: bool,
    /// The end of a BEGIN of which the client has its answer.
    pub begun: bool,
}

/// Reads as much of an answer as is needed to tell. Acknowledgements and descriptions tell nothing: a server has said them
/// before it runs anything, and sends them with the first row or the error.
pub fn first_word(from_server: &[u8], mut owed: Owed) -> FirstWord {
    let (mut at, mut ours) = (0, 0);
    loop {
        let rest = from_server.get(at..).unwrap_or_default();
        let Ok(Some(Header { tag, total })) = Header::read(rest) else { return FirstWord::Undecided(ours) };
        let Some(message) = rest.get(..total) else { return FirstWord::Undecided(ours) };
        match tag {
            b'E' if owed == Owed::default() => {
                return FirstWord::Fails(Why::of(message.get(HEADER..).unwrap_or_default()));
            }
            b'Z' if owed.ready => {
                owed.ready = false;
                ours = at + total;
            }
            b'T' | b'D' | b'C' if owed.ready => {}
            b'C' if owed.begun => {
                owed.begun = false;
                ours = at + total;
            }
            b'1' | b'2' | b'3' | b't' | b'n' | b'T' | b'S' | b'N' | b'A' => {}
            _ => return FirstWord::Stands,
        }
        at += total;
    }
}

impl Why {
    fn of(error: &[u8]) -> Why {
        match error_field(error, b'C').unwrap_or_default() {
            // Its plan is of before something was replayed.
            b"0A000" if is_outdated(Some(error)) => Why::IsReplica,
            b"0A000" if error_field(error, b'R') == Some(b"GetSerializableTransactionSnapshot") => {
                Why::IsSerializable
            }
            b"25006" | b"55000" | b"0A000" => Why::IsNoRead,
            // Cancelled for what is replayed; a schema or something else that is not there, or not there yet.
            b"40001" | b"40P01" | b"3F000" => Why::IsReplica,
            code if code.starts_with(b"57P") => Why::Farewell,
            code if code.starts_with(b"42") => Why::IsReplica,
            _ => Why::Itself,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn said(messages: &[(u8, &[u8])]) -> BytesMut {
        let mut out = BytesMut::new();
        for (tag, body) in messages {
            out.put_u8(*tag);
            out.put_u32(u32::try_from(body.len() + 4).unwrap());
            out.put_slice(body);
        }
        out
    }

    fn error(code: &str, message: &str) -> Vec<u8> {
        format!("SERROR\0C{code}\0M{message}\0\0").into_bytes()
    }

    #[test]
    fn nothing_is_decided_before_a_row_an_end_or_an_error() {
        let none = Owed::default();
        let prelude: &[(u8, &[u8])] =
            &[(b'1', b""), (b'2', b""), (b't', b"\0\0"), (b'T', b"\0\0"), (b'S', b"a\0b\0")];
        assert_eq!(first_word(&said(prelude), none), FirstWord::Undecided(0));
        for end in [(b'D', &b"\0\0"[..]), (b'C', b"SELECT 0\0"), (b'I', b""), (b'H', b"\0\0\0"), (b'Z', b"I")]
        {
            let whole = said(&[prelude, &[end]].concat());
            assert_eq!(first_word(&whole, none), FirstWord::Stands);
            for cut in 0..whole.len() {
                assert_eq!(first_word(&whole[..cut], none), FirstWord::Undecided(0), "{cut} bytes");
            }
        }
        let failed = error("25006", "cannot execute nextval() in a read-only transaction");
        let failed = said(&[prelude, &[(b'E', &failed)]].concat());
        assert_eq!(first_word(&failed, none), FirstWord::Fails(Why::IsNoRead));
    }

    #[test]
    fn what_is_the_proxys_own_decides_nothing() {
        let ours = [(b'T', &b"\0\0"[..]), (b'D', b"\0\0"), (b'C', b"SELECT 1\0"), (b'Z', b"I")];
        let begun = [(b'1', &b""[..]), (b'2', b""), (b'C', b"BEGIN\0")];
        let owed = Owed { ready: true, begun: true };
        let whole = said(&[&ours[..], &begun].concat());
        assert_eq!(first_word(&whole, owed), FirstWord::Undecided(whole.len()));
        assert_eq!(first_word(&said(&ours), owed), FirstWord::Undecided(said(&ours).len()));
        let row = said(&[&ours[..], &begun, &[(b'D', b"\0\0")]].concat());
        assert_eq!(first_word(&row, owed), FirstWord::Stands);
        let refused = said(&[(b'E', &error("22023", "no such role"))]);
        assert_eq!(
            first_word(&refused, owed),
            FirstWord::Stands,
            "a setting that is refused is the session's end"
        );
    }

    #[test]
    fn why_a_replica_fails() {
        let of = |code, message| Why::of(&error(code, message));
        assert_eq!(of("25006", "cannot execute INSERT in a read-only transaction"), Why::IsNoRead);
        assert_eq!(of("55000", "recovery is in progress"), Why::IsNoRead);
        assert_eq!(
            of("0A000", "cannot access temporary or unlogged relations during recovery"),
            Why::IsNoRead
        );
        let serializable = [&b"SERROR\0C0A000\0RGetSerializableTransactionSnapshot\0\0"[..]].concat();
        assert_eq!(Why::of(&serializable), Why::IsSerializable);
        assert_eq!(of("0A000", "cached plan must not change result type"), Why::IsReplica);
        assert_eq!(of("40001", "canceling statement due to conflict with recovery"), Why::IsReplica);
        assert_eq!(of("42P01", "relation \"new\" does not exist"), Why::IsReplica);
        assert_eq!(of("57P01", "terminating connection due to administrator command"), Why::Farewell);
        assert_eq!(of("22012", "division by zero"), Why::Itself);
        assert_eq!(of("57014", "canceling statement due to user request"), Why::Itself);
    }
}
