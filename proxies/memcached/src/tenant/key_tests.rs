use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn mapped(prefix: &str, generation: u64, key: &[u8]) -> (Vec<u8>, Back) {
    let mut room = ROOM;
    let mapped = Head::new(prefix, generation).map(key, &mut room);
    (mapped.key.to_vec(), mapped.back)
}

#[test]
fn a_key_as_the_server_sees_it() {
    assert_eq!(mapped("shop", 0, b"user:7"), (b"shop/0:user:7".to_vec(), Back::Cut(7)));
    assert_eq!(mapped("shop", 1_763_650_000, b"a").0, b"shop/t6151s:a");
    assert_eq!(mapped("a", 35, b"x").0, b"a/z:x");
    assert_eq!(mapped("a", 36, b"x").0, b"a/10:x");
}

#[test]
fn the_own_part_is_what_rules_are_about() {
    for key in [&b"page:7"[..], b"a/0:b", b"~", &[b'k'; 250]] {
        let (server, _) = mapped("shop", 7, key);
        assert!(own_part(&server).starts_with(&key[..key.len().min(100)]));
    }
    assert_eq!(own_part(b"no tenant's"), b"no tenant's");
}

#[test]
fn a_long_key_keeps_its_beginning() {
    let long = [b"page:".as_slice(), &[b'x'; 245]].concat();
    let (key, back) = mapped("shop", 0, &long);
    assert_eq!((key.len(), back), (KEY_LEN_MAX, Back::Keep));
    assert!(key.starts_with(b"shop/0~page:xxx"));
    // 243 bytes are the last that fit behind `shop/0:`.
    assert_eq!(mapped("shop", 0, &long[..243]).1, Back::Cut(7));
    assert_eq!(mapped("shop", 0, &long[..244]).1, Back::Keep);
    // With the longest head there is still something to read.
    let (key, _) = mapped(&"p".repeat(PREFIX_LEN_MAX), u64::MAX, &long);
    assert_eq!(key.len(), KEY_LEN_MAX);
    assert!(key.windows(5).any(|part| part == b"page:"));
}

#[test]
fn a_key_that_no_line_can_hold_is_hashed_where_its_base64_would_be_too_long() {
    let binary = vec![0u8; 179];
    assert_eq!(mapped("shop", 0, &binary).1, Back::Cut(7));
    let (key, back) = mapped("shop", 0, &[0u8; 180]);
    assert_eq!(back, Back::Keep);
    assert!(key.iter().all(is_plain), "what is hashed can always be told in a line");
}

proptest! {
    #[test]
    fn whole_keys_of_one_tenant_are_named_as_each_by_itself(
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=KEY_LEN_MAX), 1..9),
    ) {
        let head = Head::new("shop", 7);
        let mut namer = Namer::new(&head);
        for key in &keys {
            let (name, back) = mapped("shop", 7, key);
            prop_assert_eq!(namer.whole(key), (back != Back::Keep).then_some(&name[..]));
        }
    }
}

/// Keys that try: those of another tenant, heads, hashed forms, neighbours in one byte.
fn crafty() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"a/0:".to_vec()),
        Just(b"a/0~".to_vec()),
        Just(b"a/1:".to_vec()),
        Just(b"b/0:x".to_vec()),
        Just(b"a.b/0:".to_vec()),
        Just(b"~".to_vec()),
        Just(b":".to_vec()),
        Just(b"/".to_vec()),
        Just(vec![b'x'; 120]),
        Just(vec![b'?'; 90]),
        Just(vec![0; 90]),
        prop::collection::vec(any::<u8>(), 1..40),
        // What a hashed key looks like, tail and all.
        Just(mapped("a", 0, &[b'x'; 250]).0),
        Just(mapped("a", 0, &[b'x'; 250]).0[4..].to_vec()),
    ];
    prop::collection::vec(word, 1..5).prop_map(|words| {
        let mut key = words.concat();
        key.truncate(KEY_LEN_MAX);
        key
    })
}

fn owner() -> impl Strategy<Value = (&'static str, u64)> {
    let prefix = prop_oneof![Just("a"), Just("b"), Just("a.b"), Just("a-0"), Just("A")];
    (prefix, prop_oneof![Just(0), Just(1), Just(10), Just(36), any::<u64>()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_two_keys_meet(keys in prop::collection::vec((owner(), crafty()), 2..12)) {
        let mut seen: HashMap<Vec<u8>, (&str, u64, Vec<u8>)> = HashMap::new();
        for ((prefix, generation), key) in keys {
            let (server, _) = mapped(prefix, generation, &key);
            prop_assert!(server.len() <= KEY_LEN_MAX);
            let whose = (prefix, generation, key);
            if let Some(other) = seen.insert(server, whose.clone()) {
                prop_assert_eq!(other, whose);
            }
        }
    }

    #[test]
    fn the_own_key_is_found_again((prefix, generation) in owner(), key in crafty()) {
        let (server, back) = mapped(prefix, generation, &key);
        if let Back::Cut(len) = back {
            prop_assert_eq!(&server[len..], &key[..]);
        } else {
            prop_assert!(key.len() > 90);
            prop_assert!(server.iter().all(is_plain));
        }
        // Whoever can be told in a line can be told in base64, or needs no base64.
        prop_assert!(server.iter().all(is_plain) || server.len() <= ENCODED_KEY_LEN_MAX);
    }

    #[test]
    fn a_neighbour_in_one_byte_is_another_key(key in crafty(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut other = key.clone();
        let at = at.index(other.len());
        other[at] ^= 1 << bit;
        prop_assert_ne!(mapped("a", 7, &key).0, mapped("a", 7, &other).0);
    }
}
