//! The same bytes to a real memcached and to the proxy: the same bytes back, mistakes included.

use std::net::SocketAddr;

use anyhow::Result;
use harness::Memcached;

use crate::client::Client;
use crate::{embedded, proxy_to};

/// Conversations, each on a connection of its own, in this order.
fn conversations() -> Vec<Vec<u8>> {
    let (longest, too_long) = ("k".repeat(250), "k".repeat(251));
    let table = [
        // Lines that are none.
        "\r\n",
        "\n",
        " \r\n",
        "x\r\n",
        "foo\r\n",
        "GET a\r\n",
        "get\ta\r\n",
        "a\0b\r\n",
        "mq\r\n",
        // Retrievals.
        "get\r\n",
        "get \r\n",
        "gets\r\n",
        "gat\r\n",
        "gat 0\r\n",
        "gat 0 \r\n",
        "gat x a\r\n",
        "set a 5 0 1\r\nx\r\nget  a\r\n get a\r\nget a \r\nget a\nget a b a\r\n",
        "get a\0b\r\n",
        "get a\tb\r\n",
        "get a\rb\r\n",
        "bget a\r\n",
        "gat 100 a b\r\n",
        "gats 0 a\r\n",
        // Stores and their numbers.
        "set a 0 0\r\n",
        "set a 0 0 1 noreply\r\nx\r\nget a\r\n",
        "set a 0 0 1 foo\r\nx\r\nget a\r\n",
        "set a 0 0 1 noreply foo\r\nx\r\n",
        "set a 0 0 1 b c d e f g h\r\nx\r\n",
        "set a x 0 1\r\nx\r\n",
        "set a -1 0 1\r\nx\r\n",
        "set a 4294967295 0 1\r\nx\r\nget a\r\n",
        "set a 4294967296 0 1\r\nx\r\nget a\r\n",
        "set a -18446744073709551615 0 1\r\nx\r\nget a\r\n",
        "set a 0 x 1\r\nx\r\n",
        "set a 0 99999999999 1\r\nx\r\n",
        "set a 0 2147483648 1\r\nx\r\nget a\r\n",
        "set a 0 -1 1\r\nx\r\nget a\r\n",
        "set a 0 0 -1\r\nx\r\n",
        "set a 0 0 x\r\nx\r\n",
        "set a 0 0 2147483646\r\nx\r\n",
        "set a 0 0 0\r\n\r\nget a\r\n",
        "set a 0 0 1\r\nx\r\nset a 0 0 1\r\nxx\r\nget a\r\n",
        "set a 0 0 1\r\nxxxx\r\nget a\r\n",
        "set a 0 0 1 noreply\r\nxx\r\n",
        "set a 0 0 1\nx\r\nget a\r\n",
        "set a 0 0 3\r\n\r\n\0\r\nget a\r\n",
        "add a 0 0 1\r\ny\r\nadd n 0 0 1\r\ny\r\nreplace a 3 0 1\r\nz\r\nreplace m 0 0 1\r\nz\r\nget a n m\r\n",
        "append a 9 9 2\r\n12\r\nprepend a 9 9 2\r\n34\r\nget a\r\nappend m 0 0 1\r\nx\r\nprepend m 0 0 1\r\nx\r\n",
        // Compare and swap.
        "gets a\r\ncas a 0 0 1 1\r\nx\r\ncas zz 0 0 1 1\r\nx\r\n",
        "cas a 0 0 1\r\nx\r\n",
        "cas a 0 0 1 x\r\nx\r\n",
        "cas a 0 0 1 -1\r\nx\r\n",
        "cas a 0 0 1 99999999999999999999999\r\nx\r\n",
        "cas a 0 0 1 0\r\nx\r\n",
        "cas zz 0 0 1 1 noreply\r\nx\r\n",
        // Counting.
        "incr\r\n",
        "incr a\r\n",
        "incr a x\r\n",
        "incr a -1\r\n",
        "incr a 18446744073709551616\r\n",
        "incr nn 1\r\n",
        "incr nn 1 noreply\r\n",
        "incr nn 1 foo\r\n",
        "decr nn 1\r\n",
        "incr a 1\r\n",
        "set a 0 0 1\r\n5\r\ndecr a 10\r\nincr a 18446744073709551615\r\nincr a 1\r\nget a\r\ngets a\r\n",
        "set a 7 0 2\r\n10\r\ndecr a 1\r\nget a\r\nincr a 1\r\nget a\r\nincr a 0\r\n",
        "set a 0 0 2\r\n 5\r\nincr a 1\r\n",
        "set a 0 0 2\r\n5 \r\nincr a 1\r\n",
        "set a 0 0 0\r\n\r\nincr a 1\r\n",
        "set a 0 0 20\r\n18446744073709551616\r\nincr a 1\r\n",
        "set a 0 0 2\r\n-5\r\nincr a 1\r\n",
        // Touch and delete.
        "touch\r\n",
        "touch a\r\n",
        "touch a x\r\n",
        "touch nn 0\r\n",
        "touch nn 0 noreply\r\n",
        "touch a 0 foo\r\n",
        "touch a 100\r\nget a\r\ntouch a -1\r\nget a\r\n",
        "delete\r\n",
        "delete nn 0\r\n",
        "delete nn 1\r\n",
        "delete nn noreply\r\n",
        "delete nn 0 noreply\r\n",
        "delete nn 1 noreply\r\n",
        "delete nn 0 0\r\n",
        "delete a b c d e\r\n",
        "set a 0 0 1\r\nx\r\ndelete a\r\ndelete a\r\nget a\r\n",
        // The rest.
        "flush_all x\r\n",
        "flush_all -1\r\n",
        "set a 0 0 1\r\nx\r\nflush_all noreply\r\nget a\r\n",
        "flush_all 0 noreply\r\n",
        "flush_all 0 foo\r\n",
        "flush_all 1 2 3\r\n",
        "flush_all 99999999999\r\n",
        "flush_all\r\n",
        "version\r\n",
        "version foo\r\n",
        "verbosity\r\n",
        "verbosity 0\r\n",
        "verbosity 0 noreply\r\n",
        "verbosity noreply\r\n",
        "verbosity 0 0 0\r\n",
        "shutdown\r\n",
        "shutdown graceful\r\n",
        "cache_memlimit\r\n",
        "cache_memlimit x\r\n",
        "stats foo\r\n",
        "stats reset\r\n",
        "stats detail\r\n",
        "stats cachedump\r\n",
        // The end.
        "quit\r\n",
        "get a\r\nquit foo\r\nget a\r\n",
        "GET / HTTP/1.1\r\n",
        "delete / HTTP/1.1\r\n",
    ];
    let mut all: Vec<Vec<u8>> = table.iter().map(|text| text.as_bytes().to_vec()).collect();
    for text in [
        format!("set {longest} 0 0 1\r\nx\r\nget {longest}\r\n"),
        format!("get {too_long}\r\n"),
        format!("get a {too_long}\r\n"),
        format!("gat 0 {too_long}\r\n"),
        format!("set {too_long} 0 0 1\r\nx\r\n"),
        format!("incr {too_long} 1\r\n"),
        format!("touch {too_long} 0\r\n"),
        format!("delete {too_long}\r\n"),
        format!("{}\r\n", "x".repeat(1000)),
        format!("{}\r\n", "x".repeat(40_000)),
        format!("gat 0 {}\r\n", "a ".repeat(20_000)),
        format!("set a 1 0 1\r\nx\r\nget {}\r\n", "a ".repeat(1500)),
        format!("gets {}\r\n", "a b ".repeat(20_000)),
        format!("get a{}\r\n", " ".repeat(20_000)),
        format!("set b 0 0 1048000\r\n{}\r\nget b\r\ndelete b\r\n", "y".repeat(1_048_000)),
        format!("set a 0 0 1\r\nx\r\nset a 0 0 1100000\r\n{}\r\nget a\r\n", "y".repeat(1_100_000)),
        format!("set a 0 0 1\r\nx\r\nadd a 0 0 1100000 noreply\r\n{}\r\nget a\r\n", "y".repeat(1_100_000)),
        format!("set a 0 0 1048576\r\n{}\r\nget a\r\n", "y".repeat(1_048_576)),
    ] {
        all.push(text.into_bytes());
    }
    all
}

/// Where the same bytes go, and how far our CAS tokens are from memcached's: the upper bits of a token say whose it
/// is, and the embedded store counts from a moment.
pub(crate) struct Pair {
    pub(crate) real: SocketAddr,
    pub(crate) ours: SocketAddr,
    offset: u64,
}

/// More tokens than a conversation has.
const TOKENS_MAX: u64 = 1 << 32;

impl Pair {
    pub(crate) fn new(real: SocketAddr, ours: SocketAddr) -> Result<Self> {
        // The same to both, so that their tokens go on being the same.
        let said = [real, ours].map(|address| {
            Client::connect(address)?.exchange(b"set token 0 0 1\r\nx\r\ngets token\r\ndelete token\r\n")
        });
        let [real_said, ours_said] = said.map(|said| said.map(|(bytes, _)| token(&bytes)));
        let (raw, token) = (real_said?, ours_said?);
        anyhow::ensure!(token > TOKENS_MAX, "{token} could be anybody's");
        Ok(Self { real, ours, offset: token - raw })
    }

    /// As a client of the proxy would send it, which has its tokens from there.
    fn to_ours(&self, bytes: &[u8]) -> Vec<u8> {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
            let mut words: Vec<_> = line.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
            if let ([command, _, _, _, _, token, ..], true) = (&mut words[..], line.starts_with(b"cas ")) {
                _ = command;
                let end = token.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(token.len());
                if let Some(raw) = token.get(..end).and_then(number).filter(|raw| *raw < TOKENS_MAX) {
                    let ours = (raw + self.offset).to_string();
                    token.splice(..end, ours.into_bytes());
                }
            }
            words.join(&b' ')
        });
        lines.collect::<Vec<_>>().concat()
    }

    /// A token as memcached would have told it.
    pub(crate) fn raw(&self, token: u64) -> u64 {
        token.checked_sub(self.offset).filter(|raw| *raw < TOKENS_MAX).unwrap_or(token)
    }

    /// As memcached would have said it.
    fn with_own_tokens(&self, bytes: &[u8]) -> Vec<u8> {
        let runs = bytes.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
        let runs = runs.map(|run| match number(run).map(|token| (token, self.raw(token))) {
            Some((token, raw)) if raw != token => raw.to_string().into_bytes(),
            Some(_) | None => run.to_vec(),
        });
        runs.collect::<Vec<_>>().concat()
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The last word of the line of a `gets`.
fn token(said: &[u8]) -> u64 {
    let line = said.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"VALUE ")).unwrap_or_default();
    line.trim_ascii_end().rsplit(|byte| *byte == b' ').next().and_then(number).unwrap_or_default()
}

/// In tens what is told in seconds, of which one may pass between the two: those left (`t99`) rounded up, those since
/// the last access (`l1`, `la=1`) down.
fn in_tens(bytes: &[u8]) -> Vec<u8> {
    let seconds = |word: &[u8], name: &str| word.strip_prefix(name.as_bytes()).and_then(number);
    let words = bytes.split_inclusive(|byte| byte.is_ascii_whitespace()).map(|word| {
        let told = word.trim_ascii_end();
        let past = ["l", "la="].into_iter().find_map(|name| Some((name, seconds(told, name)? / 10 * 10)));
        match past.or_else(|| Some(("t", seconds(told, "t")?.next_multiple_of(10)))) {
            Some((name, tens)) => format!("{name}{tens} ").into_bytes(),
            None => word.to_vec(),
        }
    });
    words.collect::<Vec<_>>().concat()
}

pub(crate) fn compare(pair: &Pair, bytes: &[u8]) -> Result<()> {
    let wanted = Client::connect(pair.real)?.exchange(bytes)?;
    let wanted = (in_tens(&wanted.0), wanted.1);
    let (seen, closed) = Client::connect(pair.ours)?.exchange(&pair.to_ours(bytes))?;
    let seen = (in_tens(&pair.with_own_tokens(&seen)), closed);
    let same = wanted.0.iter().zip(&seen.0).take_while(|(wanted, seen)| wanted == seen).count();
    let shown = |(bytes, closed): &(Vec<u8>, bool)| {
        let near = bytes.get(same.saturating_sub(100)..bytes.len().min(same + 100)).unwrap_or_default();
        format!("{:?} ({} bytes, closed: {closed})", String::from_utf8_lossy(near), bytes.len())
    };
    let sent = String::from_utf8_lossy(bytes.get(..bytes.len().min(6000)).unwrap_or_default()).into_owned();
    assert!(
        wanted == seen,
        "{sent:?}\nfrom byte {same} on:\nmemcached: {}\nproxy:     {}",
        shown(&wanted),
        shown(&seen)
    );
    Ok(())
}

#[test]
fn every_conversation_is_memcacheds_own() -> Result<()> {
    let (real, behind) = (Memcached::start()?, Memcached::start()?);
    let proxy = proxy_to(&[behind.address()], "").start()?;
    let pair = Pair::new(real.address(), proxy.address())?;
    conversations().iter().try_for_each(|bytes| compare(&pair, bytes))
}

#[test]
fn the_embedded_store_talks_as_memcached_does() -> Result<()> {
    let (real, proxy) = (Memcached::start()?, embedded()?);
    // What is told of a server that is none, and its limit, which counts an item's key and header too.
    let of_servers: [&[u8]; 4] = [b"stats foo", b"stats detail", b"stats cachedump", b"set a 0 0 1048576"];
    let pair = Pair::new(real.address(), proxy.address())?;
    conversations()
        .iter()
        .filter(|bytes| !of_servers.iter().any(|command| bytes.starts_with(command)))
        .try_for_each(|bytes| compare(&pair, bytes))
}

/// Numbers that follow from a seed (xorshift64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }

    pub(crate) fn of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len())).copied().unwrap_or_default()
    }
}

/// A pipelined stream of requests, good and bad. Counters never get shorter: whether memcached then pads
/// them depends on whether an earlier answer is still being sent.
fn any_conversation(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..60 {
        let key = dice.of(&["a", "b", "c", "dd", "e\u{e9}", "counter"]);
        let number = dice.of(&["0", "1", "7", "99", "-1", "x", "18446744073709551615", "4294967296", ""]);
        let exptime = dice.of(&["0", "0", "1000", "-1", "x"]);
        let noreply = dice.of(&["", "", " noreply", " foo", " noreply x"]);
        let value = dice.of(&["", "5", "12", "hello", "a\r\nb", "123456789"]);
        let length = if dice.below(20) == 0 { "3".to_owned() } else { value.len().to_string() };
        text += &match dice.below(16) {
            0..=3 => format!("{} {key} a {key}\r\n", dice.of(&["get", "gets", "get  "])),
            4 => format!("{} {exptime} {key} b\r\n", dice.of(&["gat", "gats"])),
            5..=8 => {
                let command = dice.of(&["set", "set", "add", "replace", "append", "prepend"]);
                format!("{command} {key} {number} {exptime} {length}{noreply}\r\n{value}\r\n")
            }
            9 => format!("cas {key} 1 {exptime} {length} {number}{noreply}\r\n{value}\r\n"),
            10 | 11 => {
                format!("incr {key} {}{noreply}\r\n", dice.of(&["0", "7", "-1", "x", "4294967296", ""]))
            }
            12 => format!("touch {key} {exptime}{noreply}\r\n"),
            13 => format!("delete {key}{}\r\n", dice.of(&["", " 0", " noreply", " 1", " 0 noreply"])),
            14 => format!("set counter 0 0 1{}\r\n{}\r\n", dice.of(&["", " noreply"]), dice.below(10)),
            _ => format!(
                "{}\r\n",
                dice.of(&["flush_all", "", "nonsense", "get", "version", "flush_all 0 0 0"])
            ),
        };
    }
    // Whatever a bad length has swallowed ends here.
    text += &"\r\n".repeat(12);
    text
}

fn compare_at_random(ours: SocketAddr, change: impl Fn(String) -> String) -> Result<()> {
    let real = Memcached::start()?;
    let pair = Pair::new(real.address(), ours)?;
    for seed in 1..=60_u64 {
        let text = change(any_conversation(&mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        compare(&pair, text.as_bytes())?;
    }
    Ok(())
}

#[test]
fn random_conversations_are_memcacheds_own() -> Result<()> {
    let behind = Memcached::start()?;
    let proxy = proxy_to(&[behind.address()], "").start()?;
    compare_at_random(proxy.address(), |text| text)
}

/// Several servers give CAS tokens of their own; everything else is as if they were one, in order.
#[test]
fn several_servers_talk_as_one() -> Result<()> {
    let behind = Memcached::start_many(4)?;
    let addresses: Vec<_> = behind.iter().map(Memcached::address).collect();
    let proxy = proxy_to(&addresses, "    connections: 2\n").start()?;
    let without_tokens =
        |text: String| text.replace("gets ", "get ").replace("gats ", "gat ").replace("cas ", "set ");
    compare_at_random(proxy.address(), without_tokens)
}

#[test]
fn random_conversations_with_the_embedded_store() -> Result<()> {
    compare_at_random(embedded()?.address(), |text| text)
}
