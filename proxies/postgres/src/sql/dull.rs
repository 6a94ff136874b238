//! Texts that can be told at a glance to do nothing to a server session: nearly all.

/// Commands that do nothing to it by themselves, as far as the words within do not.
const COMMANDS: [&[u8; 6]; 4] = [b"select", b"insert", b"update", b"delete"];

/// Pairs of neighbouring bytes of which each word that matters has one, wherever it stands, in lower case. A word that
/// is dull without them: INTO and CREATE matter before TEMP alone.
const PAIRS: [(Option<u8>, u8); 5] = [
    (Some(b'm'), b'p'), // TEMP, TEMPORARY, pg_temp
    (Some(b'g'), b'_'), // pg_notify, pg_advisory_lock and its kin
    (Some(b'n'), b'f'), // set_config
    (None, b'x'),       // EXECUTE
    (None, b';'),       // another statement
];

/// For each byte, a bit for each of [`PAIRS`] of which it is the first, or the second.
const FIRST: [u8; 256] = table(true);
const SECOND: [u8; 256] = table(false);

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "below 256")]
const fn table(is_first: bool) -> [u8; 256] {
    let mut bits = [0; 256];
    let mut pair = 0;
    while pair < PAIRS.len() {
        let mut byte = 0;
        while byte < 256 {
            let lower = (byte as u8).to_ascii_lowercase();
            let is_it = match PAIRS[pair] {
                (Some(first), _) if is_first => lower == first,
                (None, _) if is_first => true,
                (_, second) => lower == second,
            };
            if is_it {
                bits[byte] |= 1 << pair;
            }
            byte += 1;
        }
        pair += 1;
    }
    bits
}

/// Whether a text is one command that does nothing to a server session beyond its transaction. That it says so of few
/// texts does no harm: the others are read.
pub(super) fn is_dull(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text);
    let Some((command, rest)) = text.split_first_chunk::<6>() else { return false };
    let command = command.to_ascii_lowercase();
    let is_known = COMMANDS.iter().any(|known| command == **known);
    is_known && rest.first() == Some(&b' ') && !has_pair(rest)
}

fn has_pair(text: &[u8]) -> bool {
    let bits = |table: &[u8; 256], byte: u8| table.get(usize::from(byte)).copied().unwrap_or_default();
    let (mut found, mut first) = (0, 0);
    for byte in text {
        found |= first & bits(&SECOND, *byte);
        first = bits(&FIRST, *byte);
    }
    found != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reading::{Reading, read_all};
    use super::*;

    #[test]
    fn usual_texts_are_dull() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1;\n",
            "UPDATE pgbench_tellers SET tbalance = tbalance + -17 WHERE tid = 3",
            "insert into \"t\" (a, b) values ('it''s', $1) returning id",
            "delete from t where a = $$b$$ -- why",
        ] {
            assert!(is_dull(text.as_bytes()), "{text}");
        }
        for text in ["SELECTION", "select", "SET a = 1", " select 1", "SELECT 1; SET a = 1", "SELECT 1;;"] {
            assert!(!is_dull(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        /// What is dull at a glance is so word by word.
        #[test]
        fn nothing_dull_does_anything(
            command in prop::sample::select(vec!["select ", "INSERT ", "Update ", "delete "]),
            words in prop::collection::vec(prop::sample::select(vec![
                "a", "into", "CREATE", "temp", "Temporary", "pg_temp_3.t", "set_config", "('a', 'b')", "EXECUTE", "s",
                "pg_notify", "pg_advisory_lock", "PG_TRY_ADVISORY_LOCK", "pg_advisory_unlock_all", ";", "set", "'", "\"",
                "$$", "--", "\n", "/*", "*/", "U&", "begin", "listen", "discard all", "deallocate", "m", "p",
            ]), 0..6),
            glue in prop::sample::select(vec!["", " "]),
        ) {
            let text = format!("{command}{}", words.join(glue));
            if is_dull(text.as_bytes()) {
                prop_assert_eq!(read_all(text.as_bytes()), Reading::default(), "{}", text);
            }
        }
    }
}
