//! ElastiCache's auto discovery: a server is asked `config get cluster` and tells all servers, with a version.
//!
//! ```text
//! config get cluster                       CONFIG cluster 0 LEN
//! (or get AmazonElastiCache:cluster)       VERSION\nHOST|IP|PORT HOST|IP|PORT …\n
//!                                          END
//! ```
//!
//! It is asked again after a while, with jitter; a failure, nonsense, or an older version than is known changes
//! nothing.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::balance::Dice;
use crate::config;
use crate::health::Backoff;
use crate::ids::Address;
use crate::net::{Connector, Stream, connect};

use super::clock::fresh_dice;
use super::source::{Found, Source, SourceError};

/// For one question, from connecting to the last byte.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Never ask more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// Between asking again after failures.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(30) };
/// An answer has some sixty bytes a server.
const ANSWER_LEN_MAX: usize = 256 << 10;
/// So many answers in a row with an older version than is known are believed: the cluster was made anew.
const OLDER_MAX: u32 = 3;

/// A cluster as its configuration endpoint tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) version: u64,
    pub(super) servers: Vec<Address>,
}

/// The ElastiCache source.
pub(super) struct Elasticache {
    config: config::Elasticache,
    tls: Option<Connector>,
    dice: Dice,
    failures: u32,
    /// Before asking next.
    pause: Duration,
    known: Option<Told>,
    older: u32,
}

impl Elasticache {
    pub(super) fn new(config: &config::Elasticache) -> Result<Self, SourceError> {
        let tls = config.tls.as_ref().map(|tls| Connector::new(tls, &[])).transpose();
        let tls = tls.map_err(|error| SourceError::Tls(error.to_string()))?;
        Ok(Self {
            config: config.clone(),
            tls,
            dice: fresh_dice(),
            failures: 0,
            pause: Duration::ZERO,
            known: None,
            older: 0,
        })
    }

    async fn next_set(&mut self) -> Found {
        loop {
            sleep(self.pause).await;
            // Set before asking: a cancelled question is asked again, not at once.
            self.pause = REFRESH_MIN;
            let asked = timeout(TIME_MAX, ask(&self.config.address, self.tls.as_ref())).await;
            match asked.unwrap_or_else(|_| Err(format!("no answer within {TIME_MAX:?}"))) {
                Ok(told) => {
                    self.failures = 0;
                    let refresh = self.config.refresh.get().max(REFRESH_MIN);
                    self.pause = refresh.mul_f64(1.0 - self.dice.unit() / 10.0);
                    if let Some(found) = self.take(told) {
                        return found;
                    }
                }
                Err(reason) => {
                    self.pause = RETRY.delay(self.failures, self.dice.unit()).max(REFRESH_MIN);
                    self.failures = self.failures.saturating_add(1);
                    let source = self.describe();
                    warn!(source, reason, again_in = ?self.pause, "cannot tell; keeping what is known");
                }
            }
        }
    }

    /// The set, if it is news. A node that lags behind may tell what was.
    fn take(&mut self, told: Told) -> Option<Found> {
        let known_version = self.known.as_ref().map_or(0, |known| known.version);
        if told.version < known_version {
            self.older += 1;
            if self.older < OLDER_MAX {
                let source = self.describe();
                warn!(source, version = told.version, known_version, "an older answer is not heeded");
                return None;
            }
        }
        self.older = 0;
        let is_news = self.known.as_ref().is_none_or(|known| known.servers != told.servers);
        let endpoints = told.servers.iter().cloned().map(config::Endpoint::from).collect();
        self.known = Some(told);
        is_news.then_some(Found { endpoints, may_be_empty: false })
    }
}

impl Source for Elasticache {
    fn describe(&self) -> String {
        format!("elasticache {}", self.config.address)
    }

    fn initial(&mut self) -> Option<Found> {
        None
    }

    fn next(&mut self) -> BoxFuture<'_, Found> {
        Box::pin(self.next_set())
    }
}

/// Asks in the newer way (1.4.14 and later), or in the older one if that is an error to the server.
async fn ask(address: &Address, tls: Option<&Connector>) -> Result<Told, String> {
    let mut stream = connect(address, tls, TIME_MAX).await.map_err(|error| error.to_string())?;
    let newer = exchange(&mut stream, b"config get cluster\r\n").await?;
    if let Some(payload) = newer {
        return parse(&payload);
    }
    match exchange(&mut stream, b"get AmazonElastiCache:cluster\r\n").await? {
        Some(payload) => parse(&payload),
        None => Err("it does not speak ElastiCache's auto discovery".to_owned()),
    }
}

/// One question's payload; `None` if the server does not know it.
async fn exchange(stream: &mut Stream, question: &'static [u8]) -> Result<Option<String>, String> {
    stream.send(&mut &*question).await.map_err(|error| error.to_string())?;
    let mut answer = BytesMut::new();
    loop {
        if let Some(payload) = payload(&answer)? {
            return Ok(payload);
        }
        if answer.len() > ANSWER_LEN_MAX {
            return Err(format!("an answer of more than {ANSWER_LEN_MAX} bytes"));
        }
        if stream.fill(&mut answer).await.map_err(|error| error.to_string())? == 0 {
            return Err("hung up on in its answer".to_owned());
        }
    }
}

/// The payload of an answer once it is whole: the outer `None` before that, the inner one if there is none.
fn payload(answer: &[u8]) -> Result<Option<Option<String>>, String> {
    let Some(line_end) = memchr::memmem::find(answer, b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(answer.get(..line_end).unwrap_or_default()).into_owned();
    let words: Vec<&str> = line.split(' ').collect();
    let len = match *words {
        ["ERROR" | "END"] => return Ok(Some(None)),
        ["CLIENT_ERROR" | "SERVER_ERROR", ..] => return Ok(Some(None)),
        ["CONFIG", "cluster", _, len] | ["VALUE", "AmazonElastiCache:cluster", _, len] => {
            digits::<usize>(len)
        }
        _ => None,
    };
    let len =
        len.filter(|len| *len <= ANSWER_LEN_MAX).ok_or_else(|| format!("an answer that begins `{line}`"))?;
    let start = line_end + 2;
    let (Some(payload), Some(end)) = (answer.get(start..start + len), answer.get(start + len..)) else {
        return Ok(None);
    };
    if end.len() < b"\r\nEND\r\n".len() {
        return Ok(None);
    }
    if end != b"\r\nEND\r\n" {
        return Err("an answer that does not end where it should".to_owned());
    }
    let payload = String::from_utf8(payload.to_vec()).map_err(|_| "an answer that is no text".to_owned())?;
    Ok(Some(Some(payload)))
}

/// Reads `VERSION\nHOST|IP|PORT …\n`, strictly. Sorted, so that every sidecar has the same order.
pub(super) fn parse(payload: &str) -> Result<Told, String> {
    let wrong = |what: &str| format!("{what} in its answer");
    let payload = payload.strip_suffix("\r\n").or_else(|| payload.strip_suffix('\n')).unwrap_or(payload);
    let (version, nodes) = payload.split_once('\n').ok_or_else(|| wrong("no list"))?;
    let version = digits(version.trim_end_matches('\r')).ok_or_else(|| wrong("no version"))?;
    let mut servers =
        nodes.split(' ').map(|node| server(node).ok_or_else(|| format!("`{node}` in its answer")));
    let mut servers: Vec<Address> = servers.by_ref().collect::<Result<_, _>>()?;
    servers.sort();
    let count = servers.len();
    servers.dedup();
    if servers.len() < count {
        return Err(wrong("a server told twice"));
    }
    Ok(Told { version, servers })
}

/// What clients and other proxies are told that ask for servers: `VERSION\nHOST|IP|PORT …\n`. A name has no IP
/// here: whoever asks looks it up. Unix sockets cannot be told.
pub fn tell_nodes(version: u64, servers: &[Address]) -> String {
    let node = |server: &Address| match server {
        Address::Tcp { host, port } if host.parse::<IpAddr>().is_ok() => {
            Some(format!("{host}|{host}|{port}"))
        }
        Address::Tcp { host, port } => Some(format!("{host}||{port}")),
        Address::Unix(_) => None,
    };
    let nodes: Vec<_> = servers.iter().filter_map(node).collect();
    format!("{version}\n{}\n", nodes.join(" "))
}

/// A name lives longer than its address: where there is one it is what is kept.
fn server(node: &str) -> Option<Address> {
    let mut parts = node.split('|');
    let (host, ip, port) = (parts.next()?, parts.next()?, parts.next()?);
    let port = digits::<u16>(port).filter(|port| *port > 0)?;
    if parts.next().is_some() || !(ip.is_empty() || ip.parse::<IpAddr>().is_ok()) {
        return None;
    }
    let host = if host.is_empty() { ip } else { host };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let fits = !host.is_empty() && host.len() <= 255 && host.bytes().all(is_name);
    (fits && (!host.contains(':') || host.parse::<IpAddr>().is_ok())).then(|| Address::tcp(host, port))
}

/// A number of nothing but digits.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_told_is_what_is_understood() {
        let servers = ["10.0.0.1:11311", "[::1]:11311", "cache.internal:11211"];
        let servers: Vec<Address> = servers.iter().map(|server| server.parse().unwrap()).collect();
        assert_eq!(
            tell_nodes(7, &servers),
            "7\n10.0.0.1|10.0.0.1|11311 ::1|::1|11311 cache.internal||11211\n"
        );
        assert_eq!(parse(&tell_nodes(7, &servers)), Ok(Told { version: 7, servers }));
    }

    /// From the AWS user guide, "Adding Auto Discovery To Your Client Library".
    const DOCUMENTED: &str = "12\nmyCluster.pc4ldq.0001.use1.cache.amazonaws.com|10.82.235.120|11211 \
                              myCluster.pc4ldq.0002.use1.cache.amazonaws.com|10.80.249.27|11211\n";

    #[test]
    fn the_documented_answer_is_read() {
        let told = parse(DOCUMENTED).unwrap();
        let host = |number| format!("myCluster.pc4ldq.000{number}.use1.cache.amazonaws.com");
        let servers = vec![Address::tcp(host(1), 11211), Address::tcp(host(2), 11211)];
        assert_eq!(told, Told { version: 12, servers });
        let bare = parse("1\n|10.0.0.2|11211 a||11212 |::1|1").unwrap();
        let wanted = [Address::tcp("10.0.0.2", 11211), Address::tcp("::1", 1), Address::tcp("a", 11212)];
        assert_eq!(bare.servers, wanted);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "12",
            "12\n",
            "x\na||1",
            "-1\na||1",
            "1\na|b|1",
            "1\na||0",
            "1\na||65536",
            "1\na||+1",
            "1\na|",
            "1\na||1||",
            "1\na||1  b||1",
            "1\na||1 a||1",
            "1\n||1",
            "1\na:b||1",
            "1\na b",
            "1\na||1\nb||1",
            "1\né||1",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_whole_or_wrong() {
        let whole = format!("CONFIG cluster 0 {}\r\n{DOCUMENTED}\r\nEND\r\n", DOCUMENTED.len());
        for end in 0..whole.len() {
            assert_eq!(payload(&whole.as_bytes()[..end]), Ok(None), "{end}");
        }
        assert_eq!(payload(whole.as_bytes()), Ok(Some(Some(DOCUMENTED.to_owned()))));
        for unknown in ["ERROR\r\n", "END\r\n", "CLIENT_ERROR x\r\n"] {
            assert_eq!(payload(unknown.as_bytes()), Ok(Some(None)));
        }
        for wrong in [
            "CONFIG cluster 0 x\r\n",
            "CONFIG cluster 0 9999999\r\n",
            "CONFIG a 0 1\r\n",
            "HTTP/1.1 400\r\n",
            "CONFIG cluster 0 1\r\nxy\r\nEND\r\n",
        ] {
            assert!(payload(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    /// A server that gives these answers, one a question, each to a connection of its own or not; and hangs up.
    async fn scripted(answers: Vec<(&'static str, String)>) -> (Address, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::from(listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut answers = answers.into_iter().peekable();
            while answers.peek().is_some() {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.unwrap() > 0 {
                    let Some((question, answer)) = answers.next() else { return };
                    assert_eq!(line.trim_end(), question);
                    line.clear();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        (address, server)
    }

    fn source(address: Address) -> Elasticache {
        let refresh = config::Duration::from_secs(1);
        Elasticache::new(&config::Elasticache { address, refresh, tls: None }).unwrap()
    }

    fn config_answer(payload: &str) -> String {
        format!("CONFIG cluster 0 {}\r\n{payload}\r\nEND\r\n", payload.len())
    }

    #[tokio::test]
    async fn news_are_told_and_nothing_else() {
        const ASKED: &str = "config get cluster";
        let (address, server) = scripted(vec![
            (ASKED, config_answer("2\na||1 b||1\n")),
            (ASKED, config_answer("2\nb||1 a||1\n")),
            (ASKED, "CONFIG cluster 0 5\r\nnonsense\r\n".to_owned()),
            (ASKED, config_answer("1\nold||1\n")),
            (ASKED, config_answer("3\na||1 c||1\n")),
        ])
        .await;
        let mut source = source(address);
        let hosts = |found: Found| -> Vec<String> {
            found.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
        };
        assert_eq!(hosts(source.next().await), ["a:1", "b:1"]);
        assert_eq!(hosts(source.next().await), ["a:1", "c:1"]);
        server.abort();
    }

    #[tokio::test]
    async fn an_old_server_is_asked_in_the_old_way() {
        let payload = "7\nx||11211\n";
        let (address, server) = scripted(vec![
            ("config get cluster", "ERROR\r\n".to_owned()),
            (
                "get AmazonElastiCache:cluster",
                format!("VALUE AmazonElastiCache:cluster 0 {}\r\n{payload}\r\nEND\r\n", payload.len()),
            ),
        ])
        .await;
        let found = source(address).next().await;
        assert_eq!(found.endpoints, ["x:11211".parse::<config::Endpoint>().unwrap()]);
        server.abort();
    }

    #[tokio::test]
    async fn a_cluster_made_anew_is_believed_in_the_end() {
        let mut source = source(Address::tcp("x", 1));
        let told = |version, host: &str| Told { version, servers: vec![Address::tcp(host, 1)] };
        assert!(source.take(told(9, "a")).is_some());
        assert!(source.take(told(9, "a")).is_none());
        assert!(source.take(told(1, "b")).is_none());
        assert!(source.take(told(1, "b")).is_none());
        assert!(source.take(told(1, "b")).is_some());
    }
}
