//! CAS values that clients see: a server's own, and whose it is.

use std::num::NonZeroU16;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bits of a token that are the server's own: enough for four years of half a million stores a second.
const OWN_BITS: u32 = 46;

/// libmemcached (1.1, and all older ones) cannot send a token of more than 18 digits.
const TOKEN_END: u64 = 1_000_000_000_000_000_000;

/// Epochs there are, not counting 0: small numbers, such as clients make up, are no tokens of any server.
const EPOCHS: u64 = TOKEN_END / (1 << OWN_BITS) - 1;

/// A CAS value that no item has: a request that carries it is refused (`EX`), or misses (`NF`).
const NO_TOKEN: u64 = u64::MAX;

/// Which run of which server a CAS value is from: the upper bits of the tokens that clients see.
///
/// A server counts its CAS values from 1, so a value of one server, or of its life before a restart, sooner
/// or later names an item of another. With the epoch in them such tokens never match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(NonZeroU16);

impl Epoch {
    /// The epoch of a run of a server: what it is called, and when and as what it started.
    pub fn new(server: &[u8], incarnation: u64) -> Self {
        let epoch = xxh3_64_with_seed(server, incarnation) % EPOCHS + 1;
        Self(u16::try_from(epoch).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MAX))
    }

    /// What a client sees in place of a server's value. Values that need more than 46 bits (only clients make
    /// such, with `E`) are shown as they are, and match nothing when they come back.
    pub fn token(self, cas: u64) -> u64 {
        if cas >> OWN_BITS == 0 { cas | (u64::from(self.0.get()) << OWN_BITS) } else { cas }
    }

    /// What the server is asked to compare with in place of a client's token: its own value, or for a token
    /// of another epoch one that no item has, so that it is the server that tells "changed" from "gone".
    pub fn cas(self, token: u64) -> u64 {
        self.own(token).unwrap_or(NO_TOKEN)
    }

    /// The server's own value in a client's token, if it is of this epoch.
    pub fn own(self, token: u64) -> Option<u64> {
        let own = token & ((1 << OWN_BITS) - 1);
        // 0 would mean "whatever it is".
        (token >> OWN_BITS == u64::from(self.0.get()) && own != 0).then_some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_in_its_own_epoch_only() {
        let epoch = Epoch::new(b"a:1", 7);
        let token = epoch.token(12);
        assert_eq!((token & 0x3fff_ffff_ffff, epoch.cas(token)), (12, 12));
        let restarted = Epoch::new(b"a:1", 8);
        let other = Epoch::new(b"b:1", 7);
        assert_eq!((restarted.cas(token), other.cas(token)), (NO_TOKEN, NO_TOKEN));
        // A raw value, a made up one, and one that would mean "whatever it is".
        for token in [12, 0, 1 << 45, epoch.token(0)] {
            assert_eq!(epoch.cas(token), NO_TOKEN, "{token}");
        }
        for server in 0..=u8::MAX {
            assert!(Epoch::new(&[server], 7).token((1 << OWN_BITS) - 1) < TOKEN_END);
        }
        // A value that has no room for an epoch.
        let large = u64::MAX - 5;
        assert_eq!((epoch.token(large), epoch.cas(large)), (large, NO_TOKEN));
    }
}
