//! Packets of the binary protocol to a real memcached and to the proxy: the same packets back.
//!
//! Not compared is where memcached itself loses its place: it waits for bytes that no client sends behind an
//! unknown opcode with a body, and takes what stands behind a key for a packet.

use std::net::SocketAddr;

use anyhow::Result;
use harness::Memcached;

use crate::client::Client;
use crate::differential::{Dice, Pair};
use crate::proxy_to;

const HEAD_LEN: usize = 24;

fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8], cas: u64) -> Vec<u8> {
    let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    let [_, _, k0, k1] = number(key.len());
    let extras_len = number(extras.len())[3];
    let body_len = number(extras.len() + key.len() + value.len());
    let head =
        [&[0x80, opcode, k0, k1, extras_len, 0, 0, 0][..], &body_len, b"opaq", &cas.to_be_bytes()].concat();
    [&head, extras, key, value].concat()
}

fn get(opcode: u8, key: &[u8]) -> Vec<u8> {
    packet(opcode, b"", key, b"", 0)
}

fn set(opcode: u8, key: &[u8], value: &[u8], flags: u32, exptime: u32, cas: u64) -> Vec<u8> {
    packet(opcode, &[flags.to_be_bytes(), exptime.to_be_bytes()].concat(), key, value, cas)
}

fn count(opcode: u8, key: &[u8], delta: u64, initial: u64, exptime: u32, cas: u64) -> Vec<u8> {
    let extras = [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &exptime.to_be_bytes()].concat();
    packet(opcode, &extras, key, b"", cas)
}

fn touch(opcode: u8, key: &[u8], exptime: u32) -> Vec<u8> {
    packet(opcode, &exptime.to_be_bytes(), key, b"", 0)
}

fn noop() -> Vec<u8> {
    get(0x0a, b"")
}

/// Everything that is answered, and whether the connection is closed then.
fn answered(address: SocketAddr, bytes: &[u8]) -> Result<(Vec<u8>, bool)> {
    let marked = |magic| [&[magic, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], b"mark", &[0; 8]].concat();
    Client::connect(address)?.exchange_up_to(bytes, &marked(0x80), &marked(0x81))
}

/// The same, the tokens as memcached tells them.
fn heard(address: SocketAddr, bytes: &[u8], pair: &Pair) -> Result<(Vec<u8>, bool)> {
    let (mut heard, closed) = answered(address, bytes)?;
    let mut at = 0;
    while let Some(head) = heard.get_mut(at..at + HEAD_LEN) {
        let (start, cas) = head.split_at_mut(16);
        let (_, body_len) = start.split_at(8);
        let token = u64::from_be_bytes(cas.try_into()?);
        cas.copy_from_slice(&pair.raw(token).to_be_bytes());
        at += HEAD_LEN + usize::try_from(u32::from_be_bytes(*body_len.first_chunk().unwrap_or(&[0; 4])))?;
    }
    Ok((heard, closed))
}

fn compare(pair: &Pair, what: &str, bytes: &[u8]) -> Result<()> {
    let wanted = heard(pair.real, bytes, pair)?;
    let seen = heard(pair.ours, bytes, pair)?;
    let shown = |(bytes, closed): &(Vec<u8>, bool)| {
        format!("{} (closed: {closed})", bytes.get(..4000).unwrap_or(bytes).escape_ascii())
    };
    assert!(wanted == seen, "{what}:\nmemcached: {}\nproxy:     {}", shown(&wanted), shown(&seen));
    Ok(())
}

fn good() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let (never, k250, value) = (u32::MAX, [b'k'; 250], vec![b'y'; 1_100_000]);
    let odd: &[u8] = b"a b\r\n\0";
    vec![
        ("no-op and version", vec![noop(), get(0x0b, b"")]),
        ("misses", [0x00, 0x0c, 0x09, 0x0d].map(|opcode| get(opcode, b"k")).to_vec()),
        ("set", vec![set(1, b"k", b"val", 7, 0, 0)]),
        ("hits", [0x00, 0x0c, 0x09, 0x0d].map(|opcode| get(opcode, b"k")).to_vec()),
        ("quiet set", vec![set(0x11, b"k", b"val2", 7, 0, 0), get(0, b"k")]),
        (
            "add",
            vec![
                set(2, b"k", b"x", 0, 0, 0),
                set(2, b"new", b"x", 0, 0, 0),
                set(0x12, b"new", b"y", 0, 0, 0),
                set(0x12, b"new2", b"y", 0, 0, 0),
            ],
        ),
        (
            "replace",
            vec![
                set(3, b"k", b"r", 0, 0, 0),
                set(3, b"nn", b"x", 0, 0, 0),
                set(0x13, b"nn", b"x", 0, 0, 0),
                set(0x13, b"k", b"y", 0, 0, 0),
            ],
        ),
        (
            "wrong tokens",
            vec![
                set(1, b"k", b"x", 0, 0, 999),
                set(1, b"nn", b"x", 0, 0, 999),
                set(2, b"k", b"x", 0, 0, 999),
                set(3, b"k", b"x", 0, 0, 999),
                set(0x11, b"k", b"x", 0, 0, 999),
                packet(4, b"", b"k", b"", 999),
                packet(0x14, b"", b"k", b"", 999),
                packet(0x0e, b"", b"k", b"x", 999),
            ],
        ),
        (
            "append and prepend",
            vec![
                packet(0x0e, b"", b"k", b"A", 0),
                packet(0x0f, b"", b"k", b"P", 0),
                packet(0x19, b"", b"k", b"a", 0),
                packet(0x1a, b"", b"k", b"p", 0),
                packet(0x0e, b"", b"nn", b"x", 0),
                packet(0x19, b"", b"nn", b"x", 0),
                get(0, b"k"),
            ],
        ),
        (
            "delete",
            vec![get(4, b"k"), get(4, b"k"), get(0x14, b"k"), set(1, b"k", b"x", 0, 0, 0), get(0x14, b"k")],
        ),
        (
            "counters",
            vec![
                count(5, b"c", 1, 10, 0, 0),
                count(5, b"c", 1, 10, 0, 0),
                count(0x15, b"c", 1, 0, 0, 0),
                get(0, b"c"),
                count(5, b"nn", 1, 10, never, 0),
                count(0x15, b"nn", 1, 10, never, 0),
                count(6, b"c", 1000, 0, 0, 0),
                count(5, b"c", u64::MAX, 0, 0, 0),
                count(5, b"c", 1, 0, 0, 898_989),
                get(4, b"c"),
                count(0x16, b"q", 1, 5, 0, 0),
                get(0, b"q"),
                count(6, b"e", 1, 77, 100, 0),
                get(4, b"q"),
                get(4, b"e"),
            ],
        ),
        (
            "no numbers",
            vec![
                set(1, b"t", b"abc", 0, 0, 0),
                count(5, b"t", 1, 1, 0, 0),
                count(0x15, b"t", 1, 1, 0, 0),
                set(1, b"t", b"", 0, 0, 0),
                count(6, b"t", 1, 1, 0, 0),
            ],
        ),
        (
            "touches",
            [0x1c, 0x1d, 0x1e, 0x23, 0x24]
                .iter()
                .flat_map(|opcode| {
                    [touch(*opcode, b"t", 100), touch(*opcode, b"nn", 100), touch(*opcode, b"t", 0)]
                })
                .collect(),
        ),
        (
            "late expiry",
            vec![set(1, b"k", b"x", 0, 0xffff_fff0, 0), get(0, b"k"), touch(0x1c, b"k", never), get(0, b"k")],
        ),
        (
            "keys of any bytes",
            vec![
                set(1, odd, b"x", 0, 0, 0),
                get(0x0c, odd),
                get(0x0d, b"\0"),
                get(0x0c, b"\0"),
                packet(0x0e, b"", odd, b"z", 0),
                count(5, b"n n", 1, 3, 0, 0),
                get(0x0c, b"n n"),
                get(4, b"n n"),
                get(4, odd),
            ],
        ),
        ("long keys", vec![set(1, &k250, b"x", 0, 0, 0), get(0x0c, &k250), get(4, &k250)]),
        ("no value", vec![set(1, b"e", b"", 0, 0, 0), get(0x0c, b"e")]),
        (
            "flushes",
            vec![
                get(8, b""),
                get(0x18, b""),
                packet(8, &[0; 4], b"", b"", 0),
                packet(8, &[0, 0, 0, 10], b"", b"", 0),
                get(8, b""),
            ],
        ),
        (
            "values over the limit",
            vec![
                set(1, b"k", b"old", 0, 0, 0),
                set(2, b"k", &value, 0, 0, 0),
                packet(0x0e, b"", b"k", &value, 0),
                get(0, b"k"),
                set(0x11, b"k", &value, 0, 0, 0),
                get(0, b"k"),
            ],
        ),
        (
            "statistics",
            vec![
                get(0x10, b"reset"),
                get(0x10, b"foo"),
                get(0x10, b"detail"),
                get(0x10, b"detail on"),
                get(0x10, b"detail off"),
                get(0x10, b"sizes"),
                get(0x10, b"conns"),
                get(0x10, b"cachedump 1 1"),
            ],
        ),
        (
            "SASL without credentials",
            vec![
                get(0x20, b""),
                packet(0x21, b"", b"PLAIN", b"\0u\0p", 0),
                packet(0x22, b"", b"PLAIN", b"\0u\0p", 0),
                packet(0x22, b"", &[b'm'; 40], b"x", 0),
                packet(0x21, b"", b"PLAIN", &[b'x'; 10_000], 0),
            ],
        ),
        ("unknown opcodes", [0x1b, 0x1f, 0x30, 0x40, 0x7f, 0xff].map(|opcode| get(opcode, b"")).to_vec()),
    ]
}

/// After these nothing more is understood.
fn last() -> Vec<(&'static str, Vec<u8>)> {
    // A length of 2 for 3 bytes, and a second packet that begins as answers do.
    let short = [&[0x80, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2][..], b"opaq", &[0; 8], b"abc"].concat();
    let magic = [noop(), vec![0x81], noop().split_off(1)].concat();
    vec![
        ("a key over the limit", get(0, &[b'k'; 251])),
        ("no key", get(0, b"")),
        ("extras of a get", packet(0, b"ext", b"k", b"", 0)),
        ("a value of a get", packet(0, b"", b"k", b"v", 0)),
        ("no extras", packet(1, b"", b"k", b"v", 0)),
        ("no key to set", set(1, b"", b"v", 0, 0, 0)),
        ("too few extras", packet(5, &[0; 8], b"k", b"", 0)),
        ("a touch without", packet(0x1c, b"", b"k", b"", 0)),
        ("a flush with a key", get(8, b"k")),
        ("a flush with half a time", packet(8, b"ab", b"", b"", 0)),
        ("a no-op with a key", get(0x0a, b"k")),
        ("a version with extras", packet(0x0b, b"abcd", b"", b"", 0)),
        ("statistics with extras", packet(0x10, b"abcd", b"", b"", 0)),
        ("mechanisms with a key", get(0x20, b"k")),
        ("a login without a mechanism", get(0x21, b"")),
        ("a body shorter than its parts", short),
        ("another magic", magic),
        ("text", [&noop()[..], b"get a\r\nget b\r\nget c\r\nget d\r\n"].concat()),
        ("quit", get(7, b"")),
        ("quiet quit", get(0x17, b"")),
        ("quit with a key", get(7, b"k")),
    ]
}

#[test]
fn packets_are_answered_as_by_memcached() -> Result<()> {
    let (real, behind) = (Memcached::start()?, Memcached::start()?);
    let proxy = proxy_to(&[behind.address()], "").start()?;
    let pair = Pair::new(real.address(), proxy.address())?;
    for (what, packets) in good() {
        compare(&pair, what, &packets.concat())?;
    }
    last().iter().try_for_each(|(what, bytes)| compare(&pair, what, bytes))
}

fn any_packet(dice: &mut Dice) -> Vec<u8> {
    let long = [b'x'; 250];
    let key: &[u8] = dice.of(&[&b"a"[..], b"b", b"c c", b"\0d", b"counter", &long]);
    // Counters never get shorter, as memcached may pad them or not.
    let value: &[u8] = dice.of(&[&b""[..], b"5", b"hello", b"a\r\nb"]);
    let (exptime, cas) = (dice.of(&[0, 100]), dice.of(&[0, 0, 0, 12_345_678]));
    let mut of = |opcodes: &[u8]| dice.of(opcodes);
    match of(&[0, 0, 1, 1, 2, 3, 4, 5]) {
        0 => get(of(&[0x00, 0x09, 0x0c, 0x0d]), key),
        1 => set(of(&[1, 0x11, 2, 0x12, 3, 0x13]), key, value, u32::from(of(&[0, 5, 255])), exptime, cas),
        2 => packet(of(&[4, 0x14]), b"", key, b"", cas),
        3 => packet(of(&[0x0e, 0x0f, 0x19, 0x1a]), b"", key, value, cas),
        4 => touch(of(&[0x1c, 0x1d, 0x1e, 0x23, 0x24]), key, exptime),
        _ if key.len() > 20 => noop(),
        _ => {
            let (opcode, delta) = (of(&[5, 0x15]), u64::from(of(&[0, 1, 200])));
            count(opcode, key, delta, 7, dice.of(&[0, 100, u32::MAX]), cas)
        }
    }
}

#[test]
fn random_packets_are_answered_as_by_memcached() -> Result<()> {
    let (real, behind) = (Memcached::start()?, Memcached::start()?);
    let proxy = proxy_to(&[behind.address()], "").start()?;
    let pair = Pair::new(real.address(), proxy.address())?;
    for seed in 1..=60_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bytes: Vec<u8> = (0..60).flat_map(|_| any_packet(&mut dice)).collect();
        compare(&pair, &format!("seed {seed}"), &bytes)?;
    }
    Ok(())
}

/// Where memcached would lose its place, or a line to a server could be forged, the proxy goes on.
#[test]
fn what_memcached_gets_wrong_is_refused_and_no_more() -> Result<()> {
    let behind = Memcached::start()?;
    let proxy = proxy_to(&[behind.address()], "").start()?;
    let status = |bytes: &[u8]| -> Result<u8> {
        let (heard, closed) = answered(proxy.address(), bytes)?;
        assert!(!closed, "{}", bytes.escape_ascii());
        Ok(heard[7])
    };
    assert_eq!(status(&packet(0x1b, &[0; 4], b"", b"", 0))?, 0x81, "verbosity");
    assert_eq!(status(&packet(0x40, b"ext", b"key", b"value", 0))?, 0x81);
    assert_eq!(status(&get(0x10, b"items\r\nflush_all"))?, 0x01);
    assert_eq!(status(&set(1, &[b' '; 187], b"x", 0, 0, 0))?, 0x04, "its base64 would be over the limit");
    assert_eq!(status(&set(1, &[b' '; 186], b"x", 0, 0, 0))?, 0x00);
    Ok(())
}

/// The statistics of all servers, a packet for each name.
#[test]
fn statistics_are_added_up_for_binary_clients_too() -> Result<()> {
    let behind = Memcached::start_many(3)?;
    let addresses: Vec<_> = behind.iter().map(Memcached::address).collect();
    let proxy = proxy_to(&addresses, "").start()?;
    let keys = (0..30).flat_map(|number: u32| set(0x11, &number.to_be_bytes(), b"x", 0, 0, 0));
    let bytes: Vec<u8> = keys.chain(get(0x10, b"")).collect();
    let (told, _) = answered(proxy.address(), &bytes)?;
    let told = told.escape_ascii().to_string();
    assert!(told.contains("curr_items30"), "{told}");
    assert!(told.contains("total_connections"), "{told}");
    Ok(())
}
