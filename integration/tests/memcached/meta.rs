//! Meta commands to a real memcached and to the proxy: the same answers, mistakes included.
//!
//! Not compared is what docs/memcached.md tells to be different: how a key is spelled that was stored in one
//! spelling and is asked for in another, a counter that is made quietly, and that a classic `get` or `touch` of a
//! stale item takes the win.

use anyhow::Result;
use harness::Memcached;

use crate::client::Client;
use crate::differential::{Dice, Pair, compare};
use crate::proxy_to;

fn conversations() -> Vec<String> {
    let (longest, too_long) = ("k".repeat(250), "k".repeat(251));
    let opaque = |len: usize| format!("O{}", "x".repeat(len));
    let table = [
        // Commands that are none, and too few words.
        "mg\r\n",
        "mg \r\n",
        "mn\r\nmn foo\r\n",
        "me\r\n",
        "ms\r\n",
        "ms a\r\nmd\r\nma\r\nmx a\r\nm\r\n",
        "mg\ta\r\nMG a\r\nmg a\nmg  a   v \r\n",
        // Retrievals: what is told, in the order of the request.
        "mg a\r\nmg a v\r\nmg a q\r\nmg a k O12\r\nmg a q k\r\nmn\r\n",
        "ms a 1 T0 F5\r\nx\r\nmg a v f t s c k\r\nmg a\r\nmg a c k f O5 v q\r\nmg a t T30\r\n",
        "mg a T30 t\r\nmg a t T60\r\nmg a t\r\nmg a T0 t v\r\n",
        "ms h 1\r\nx\r\nmg h h l t\r\nmg h h l t\r\nmg h u h\r\nmd h\r\nms h 1\r\nx\r\nmg h u v\r\nmg h h\r\n",
        "ms r 1 T20\r\nx\r\nmg r R30 v t\r\nmg r R30 v t\r\nmg r R10\r\nms r 1 T20\r\nx\r\nmg r T60 R30\r\nmg r R90 T90\r\n",
        "mg viv N30 v t c k\r\nmg viv N30 v\r\nmg viv v t\r\nmg viv t N30\r\nmd viv I T30 k O7\r\nmg viv v c\r\nmg viv v\r\n",
        "mg viv2 t N30 v\r\nmg viv3 N30 t v R60\r\nmg viv3 R60 t\r\n",
        "mg a P L\r\nmg a Pfoo Lbar\r\nmg a I u q\r\nmg a kk vv k1\r\n",
        // Stores.
        "ms a 1\r\nx\r\nms a 1 q\r\nx\r\nms a 1 k c O9\r\nx\r\nms a S1\r\nx\r\nms a 0\r\n\r\nmg a v s\r\n",
        "ms a 1 ME\r\nx\r\nms a 1 ME q k O3\r\nx\r\nms zz 1 MR\r\nx\r\nms zz 1 MA c k\r\nx\r\nms a 1 MA\r\ny\r\n\
         ms a 1 MP\r\nz\r\nmg a v\r\nms a 1 MS\r\nw\r\nms a 1 MX\r\nw\r\nms a 1 M\r\nw\r\nms a 1 MSS\r\nw\r\nmg a v\r\n",
        "ms a 2\r\nxyz\r\nmg a v\r\nms a 1 q\r\nxyz\r\nms a -1\r\nx\r\nms a x\r\nx\r\nms a 2147483647\r\n",
        "ms a 1 z\r\nx\r\nms a 1 k k\r\nx\r\nms a 1 Fx\r\nx\r\nms a 1 Tx\r\nx\r\nms a 1 Cx\r\nx\r\nms a 1 F-1\r\nx\r\n",
        "ms a 1 C5\r\nx\r\nms nn 1 C5\r\nx\r\nms nn 1 C5 c k O1\r\nx\r\nms a 1 C0\r\nx\r\nms a 1 C0 MA\r\nx\r\nms a 1 C5 MP\r\nx\r\n",
        "ms a 1 I\r\nx\r\nms a 1 v s t f h l\r\nx\r\nms a 1 N30 MA\r\nx\r\nms new1 1 N30 MA\r\nx\r\nmd new1\r\n",
        "ms a 1 T-1\r\nx\r\nmg a\r\nms a 1 T2147483648\r\nx\r\nmg a v\r\nms a 1 F4294967296\r\nx\r\nmg a f\r\n",
        "set a 5 0 1\r\ny\r\nmg a v f\r\nms a 1 F7\r\nz\r\nget a\r\nincr a 1\r\nms a 1\r\n4\r\nincr a 1\r\nma a v\r\n",
        // What is wrong with flags.
        "mg a z\r\nmg a k k\r\nmg a \u{ff}\r\nmg a \u{7f}\r\nmg a Nx\r\nmg a Tx\r\nmg a Rx\r\nmg a Cx\r\nmg a Fx\r\n",
        "mg a Mx\r\nmg a M\r\nmg a Jx\r\nmg a Dx\r\nmg a Nx Jx\r\nmg a Jx z\r\nmg a E5\r\n",
        "mg a k v f t s c h l q u O1 N0 T0 R0 I P L\r\nmg a k v f t s c h l q u O1 N0 T0 R0 I P L C1 D1\r\n",
        "md a k v f t s c h l q u O1 N0 T0 R0 I P L C1 D1\r\nma a k v f t s c h l q u O1 N0 T0 R0 I P L C1 D1\r\n",
        "ms a 1 k v f t s c h l q u O1 N0 T0 R0 I P L C1 D1\r\nx\r\n",
        "mg a k v f t s c h l q u O1 N0 T0 R0 I P L C1 D1 z z z z z z z z\r\n",
        // Keys in base64.
        "ms Zm9v 1 b k c\r\nx\r\nmg Zm9v b k v\r\nmg Zm9v k b v\r\nmg Zm9v b q k\r\nmd Zm9v b k\r\nmg Zm9v b k O1\r\n",
        "ms AAEgDQo= 2 b\r\nxy\r\nmg AAEgDQo= b v k s\r\nms AAEgDQo= 1 b MA\r\nz\r\nmg AAEgDQo= b v\r\nmd AAEgDQo= b\r\n",
        "mg !!! b\r\nmg Zm9 b\r\nms !!! 1 b\r\nx\r\nmg a b\r\n",
        // Counters.
        "ma cnt\r\nma cnt N0 J10 v\r\nma cnt v\r\nma cnt D5 v\r\nma cnt MD D3 v c t k O1\r\nma cnt M- v\r\nma cnt M+ v\r\n",
        "ma cnt MI v\r\nma cnt Mx\r\nma cnt q\r\nma cnt q v\r\nmn\r\nma nn q\r\nma nn q k O1\r\nma cnt Dx\r\nma cnt Jx\r\n",
        "ma cnt T30 t v\r\nma cnt t T60 v\r\nma cnt C999999 v k\r\nma cnt C0 v\r\nma cnt D18446744073709551615 v\r\nmd cnt\r\n",
        "ms txt 3\r\nabc\r\nma txt\r\nma txt q\r\nma txt v k\r\nma cn2 N30 t v\r\nma cn3 t N30 v\r\nmd cn2\r\nmd cn3\r\n",
        // Deletes.
        "md nn k O4\r\nmd nn C5\r\nmd nn q\r\nms a 1\r\nx\r\nmd a C5 k\r\nmd a C0\r\nmd a x\r\nmd a E5\r\nmd a z\r\nmd a k k\r\n",
        "md a Tx\r\nmd a M\r\nmd a q k\r\nmn\r\nmd a\r\n",
        // What is known of an item.
        "me nn\r\nms dbg 1\r\nx\r\nme dbg\r\nme dbg foo\r\nme !! b\r\n",
    ];
    let mut all: Vec<String> = table.iter().map(|text| (*text).to_owned()).collect();
    all.extend([
        format!("mg {longest}\r\nms {longest} 1 k\r\nx\r\nmg {longest} k v\r\nmd {longest} k\r\n"),
        format!(
            "mg {too_long}\r\nms {too_long} 1\r\nx\r\nmd {too_long}\r\nma {too_long}\r\nme {too_long}\r\n"
        ),
        format!("mg a {}\r\nmg a {}\r\nmd a {}\r\n", opaque(31), opaque(32), opaque(32)),
        format!("ms a 1 {}\r\nx\r\nms a 1 {}\r\nx\r\n", opaque(31), opaque(32)),
        format!("ms big 1100000\r\n{}\r\nmg big\r\n", "y".repeat(1_100_000)),
        format!("ms big 1\r\nx\r\nms big 1100000 ME q k O1\r\n{}\r\nmg big\r\n", "y".repeat(1_100_000)),
        format!("mg a {}\r\n", "x".repeat(3000)),
        format!("mg {}\r\n", "a ".repeat(20_000)),
    ]);
    all
}

#[test]
fn meta_conversations_are_memcacheds_own() -> Result<()> {
    let (real, behind) = (Memcached::start()?, Memcached::start()?);
    let proxy = proxy_to(&[behind.address()], "").start()?;
    let pair = Pair::new(real.address(), proxy.address())?;
    conversations().iter().try_for_each(|text| compare(&pair, text.as_bytes()))
}

const FLAGS: [&str; 28] = [
    "k",
    "v",
    "t",
    "s",
    "c",
    "f",
    "q",
    "O77",
    "u",
    "T0",
    "T100",
    "R30",
    "N100",
    "C123456789",
    "F5",
    "ME",
    "MA",
    "MR",
    "MP",
    "D1",
    "J5",
    "P",
    "L",
    "z",
    "Tx",
    "q",
    "v",
    "t",
];

/// Meta and classic requests in one stream, good and bad.
fn any_conversation(dice: &mut Dice) -> String {
    let mut text = String::new();
    let long = "x".repeat(250);
    for _ in 0..60 {
        let key = dice.of(&["a", "b", "c", "e\u{e9}", &long]).to_owned();
        let mut flags = Vec::new();
        for _ in 0..dice.below(7) {
            let flag = dice.of(&FLAGS);
            if !flags.iter().any(|known: &&str| known[..1] == flag[..1]) || dice.below(10) == 0 {
                flags.push(flag);
            }
        }
        let value = dice.of(&["", "5", "hello", "a\r\nb"]);
        let length = if dice.below(20) == 0 { 3 } else { value.len() };
        let words = flags.iter().map(|flag| format!(" {flag}")).collect::<String>();
        text += &match dice.below(16) {
            0..=3 => format!("mg {key}{words}\r\n"),
            4..=6 => format!("ms {key} {length}{words}\r\n{value}\r\n"),
            7 => format!("md {key}{words}\r\n"),
            // Counters are never made or made stale: see above, and memcached keeps marks or not as it likes.
            8 => {
                format!("ma counter {}\r\n", dice.of(&["", "v", "v k c", "q", "O1 k", "D5 v t", "z", "MI v"]))
            }
            9 => "mn\r\n".to_owned(),
            10 => "me nothing\r\n".to_owned(),
            11 => format!("{} d counter\r\n", dice.of(&["get", "gets"])),
            12 => format!("set counter 0 0 1\r\n{}\r\n", dice.below(10)),
            13 => format!("incr counter {}\r\n", dice.of(&["1", "7", "x"])),
            14 => "touch d 100\r\nset d 1 0 1\r\nx\r\n".to_owned(),
            // Never as many seconds as `R30` asks for: one may pass between the two.
            _ => format!("md {key} I {}\r\n", dice.of(&["", "T60", "q", "T60 k"])),
        };
    }
    text + &"\r\n".repeat(12)
}

#[test]
fn random_meta_conversations_are_memcacheds_own() -> Result<()> {
    let (real, behind) = (Memcached::start()?, Memcached::start()?);
    let proxy = proxy_to(&[behind.address()], "").start()?;
    let pair = Pair::new(real.address(), proxy.address())?;
    (1..=60_u64).try_for_each(|seed| {
        let text = any_conversation(&mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        compare(&pair, text.as_bytes())
    })
}

/// A fence behind requests to several servers is passed when all of them have answered.
#[test]
fn a_fence_comes_behind_all_servers() -> Result<()> {
    let behind = Memcached::start_many(3)?;
    let addresses: Vec<_> = behind.iter().map(Memcached::address).collect();
    let proxy = proxy_to(&addresses, "").start()?;
    let mut client = Client::connect(proxy.address())?;
    let sets: String = (0..50).map(|number| format!("ms key{number} 1 q\r\nx\r\n")).collect();
    assert_eq!(client.ask(&format!("{sets}mn\r\n"))?, "MN");
    let gets: String = (0..50).map(|number| format!("mg key{number} q k O{number}\r\n")).collect();
    client.send(format!("{gets}mg no q\r\nmn\r\n").as_bytes())?;
    for number in 0..50 {
        assert_eq!(client.line()?, format!("HD kkey{number} O{number}"));
    }
    assert_eq!(client.line()?, "MN");
    Ok(())
}

/// Tokens told to a meta client are good for it, and only as long as the item is as it was.
#[test]
fn tokens_of_meta_clients() -> Result<()> {
    let behind = Memcached::start_many(2)?;
    let addresses: Vec<_> = behind.iter().map(Memcached::address).collect();
    let proxy = proxy_to(&addresses, "").start()?;
    let mut client = Client::connect(proxy.address())?;
    let token = |line: String| line.rsplit(" c").next().unwrap_or_default().to_owned();
    let first = token(client.ask("ms a 1 c\r\n1\r\n")?);
    assert_eq!(token(client.ask("mg a c\r\n")?), first);
    let second = token(client.ask(&format!("ms a 1 c C{first}\r\n2\r\n"))?);
    assert_eq!(client.ask(&format!("ms a 1 C{first}\r\n3\r\n"))?, "EX");
    let third = token(client.ask(&format!("ma a c C{second}\r\n"))?);
    assert_eq!(client.ask(&format!("md a C{second}\r\n"))?, "EX");
    assert_eq!(client.ask(&format!("md a C{third}\r\n"))?, "HD");
    Ok(())
}
