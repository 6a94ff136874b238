//! One client's connection to one sidecar, in memcached's classic or meta protocol.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any sidecar's own timeout; after it the connection is given up.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `get`, `set`, …
    Classic,
    /// `mg`, `ms`, …
    Meta,
}

/// What is asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// get, or gets if its CAS token is wanted too.
    Get,
    /// get, and another expiry.
    GetAndTouch,
    /// set
    Set(String),
    /// add
    Add(String),
    /// replace
    Replace(String),
    /// append
    Append(String),
    /// prepend
    Prepend(String),
    /// cas with this token.
    Swap(String, u64),
    /// incr by one
    Increment,
    /// decr by one
    Decrement,
    /// delete
    Delete,
    /// touch
    Touch,
}

impl Ask {
    /// Its place among the verbs that a record can name.
    pub(super) fn verb(&self) -> usize {
        match self {
            Self::Get => 1,
            Self::GetAndTouch => 2,
            Self::Set(_) => 3,
            Self::Add(_) => 4,
            Self::Replace(_) => 5,
            Self::Append(_) => 6,
            Self::Prepend(_) => 7,
            Self::Swap(..) => 8,
            Self::Increment => 9,
            Self::Decrement => 10,
            Self::Delete => 11,
            Self::Touch => 12,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The content and its CAS token.
    Content(Vec<u8>, u64),
    /// Nothing is there: `END`, `NOT_FOUND`, or `NOT_STORED` of what needs something.
    Nothing,
    /// `STORED`, `DELETED`, `TOUCHED`.
    Done,
    /// `NOT_STORED` of an add, `EXISTS` of a cas.
    Taken,
    /// A number.
    Number(u64),
    /// `SERVER_ERROR`, or no answer: whether it happened is not known.
    Unknown,
}

/// An expiry that no run lives to see.
const LONG: &str = "86400";

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    protocol: Protocol,
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub(super) async fn connect(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        let stream = timeout(ANSWERED_WITHIN, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { protocol, stream: BufReader::new(stream), line: Vec::new() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the connection fails or the answer is none: it cannot be used any more, and what was asked may or may
    /// not happen.
    pub(super) async fn ask(&mut self, key: &str, ask: &Ask) -> Result<Told> {
        let request = match self.protocol {
            Protocol::Classic => classic(key, ask),
            Protocol::Meta => meta(key, ask),
        };
        timeout(ANSWERED_WITHIN, async {
            self.stream.get_mut().write_all(request.as_bytes()).await?;
            match self.protocol {
                Protocol::Classic => self.classic_answer(ask).await,
                Protocol::Meta => self.meta_answer(ask).await,
            }
        })
        .await
        .with_context(|| format!("{request:?} was not answered"))?
    }

    /// The next line without its end.
    async fn line(&mut self) -> Result<String> {
        self.line.clear();
        let count = self.stream.read_until(b'\n', &mut self.line).await?;
        let line = self.line.strip_suffix(b"\r\n").with_context(|| format!("{count} bytes and no line"))?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    async fn data(&mut self, length: &str) -> Result<Vec<u8>> {
        let mut data = vec![0; length.parse::<usize>()? + 2];
        self.stream.read_exact(&mut data).await?;
        data.truncate(data.len() - 2);
        Ok(data)
    }

    async fn classic_answer(&mut self, ask: &Ask) -> Result<Told> {
        let line = self.line().await?;
        if let Some(header) = line.strip_prefix("VALUE ") {
            let mut words = header.split(' ').skip(2);
            let content = self.data(words.next().unwrap_or_default()).await?;
            let token = words.next().map_or(Ok(0), str::parse)?;
            let end = self.line().await?;
            anyhow::ensure!(end == "END", "{end:?} after a value");
            return Ok(Told::Content(content, token));
        }
        Ok(match (line.as_str(), ask) {
            ("END" | "NOT_FOUND", _) => Told::Nothing,
            ("STORED" | "DELETED" | "TOUCHED", _) => Told::Done,
            ("EXISTS", _) | ("NOT_STORED", Ask::Add(_)) => Told::Taken,
            ("NOT_STORED", _) => Told::Nothing,
            (error, _) if error.starts_with("SERVER_ERROR ") => Told::Unknown,
            (other, _) => Told::Number(other.trim_end().parse().with_context(|| format!("told {other:?}"))?),
        })
    }

    async fn meta_answer(&mut self, ask: &Ask) -> Result<Told> {
        let line = self.line().await?;
        if let Some(header) = line.strip_prefix("VA ") {
            let mut words = header.split(' ');
            let content = self.data(words.next().unwrap_or_default()).await?;
            if matches!(ask, Ask::Increment | Ask::Decrement) {
                return Ok(Told::Number(String::from_utf8_lossy(&content).trim_end().parse()?));
            }
            let token = words.find_map(|word| word.strip_prefix('c')).map_or(Ok(0), str::parse)?;
            return Ok(Told::Content(content, token));
        }
        let word = line.split(' ').next().unwrap_or_default();
        Ok(match (word, ask) {
            ("EN" | "NF", _) => Told::Nothing,
            ("HD", _) => Told::Done,
            ("EX", _) | ("NS", Ask::Add(_)) => Told::Taken,
            ("NS", _) => Told::Nothing,
            ("SERVER_ERROR", _) => Told::Unknown,
            _ => bail!("told {line:?}"),
        })
    }
}

fn classic(key: &str, ask: &Ask) -> String {
    let store = |verb: &str, content: &str, more: &str| {
        format!("{verb} {key} 0 0 {}{more}\r\n{content}\r\n", content.len())
    };
    match ask {
        Ask::Get => format!("gets {key}\r\n"),
        Ask::GetAndTouch => format!("gats {LONG} {key}\r\n"),
        Ask::Set(content) => store("set", content, ""),
        Ask::Add(content) => store("add", content, ""),
        Ask::Replace(content) => store("replace", content, ""),
        Ask::Append(content) => store("append", content, ""),
        Ask::Prepend(content) => store("prepend", content, ""),
        Ask::Swap(content, token) => store("cas", content, &format!(" {token}")),
        Ask::Increment => format!("incr {key} 1\r\n"),
        Ask::Decrement => format!("decr {key} 1\r\n"),
        Ask::Delete => format!("delete {key}\r\n"),
        Ask::Touch => format!("touch {key} {LONG}\r\n"),
    }
}

fn meta(key: &str, ask: &Ask) -> String {
    let store = |content: &str, flags: &str| format!("ms {key} {}{flags}\r\n{content}\r\n", content.len());
    match ask {
        Ask::Get => format!("mg {key} v c\r\n"),
        Ask::GetAndTouch => format!("mg {key} v c T{LONG}\r\n"),
        Ask::Set(content) => store(content, ""),
        Ask::Add(content) => store(content, " ME"),
        Ask::Replace(content) => store(content, " MR"),
        Ask::Append(content) => store(content, " MA"),
        Ask::Prepend(content) => store(content, " MP"),
        Ask::Swap(content, token) => store(content, &format!(" C{token}")),
        Ask::Increment => format!("ma {key} v\r\n"),
        Ask::Decrement => format!("ma {key} MD v\r\n"),
        Ask::Delete => format!("md {key}\r\n"),
        Ask::Touch => format!("mg {key} T{LONG}\r\n"),
    }
}
