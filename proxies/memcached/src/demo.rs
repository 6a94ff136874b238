//! `groove-memcached demo`: the proxy over its embedded store, and a client that uses it.

use bytes::BytesMut;
use groove_common::app::{DemoRow, Running, StartError};
use groove_common::config::check_text;
use groove_common::ids::Address;
use groove_common::net::{Stream, connect};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::Memcached;
use crate::wire::{Limits, classic};

const CONFIG: &str = "
listeners: [{address: 127.0.0.1:0}]
clusters:
  main: {endpoints: {embedded: {capacity: 64MiB}}}
";

/// What a client says, and what it should hear.
const EXCHANGES: [(&str, &str, &str); 7] = [
    ("store a session", "set session:7 0 3600 5\r\nalice\r\n", "STORED"),
    ("read it back", "get session:7\r\n", "VALUE session:7 0 5 alice END"),
    ("count visits", "set visits 0 0 2\r\n41\r\nincr visits 1\r\n", "STORED 42"),
    (
        "many keys, one missing",
        "get session:7 nobody visits\r\n",
        "VALUE session:7 0 5 alice VALUE visits 0 2 42 END",
    ),
    ("add only once", "add session:7 0 0 3\r\nbob\r\n", "NOT_STORED"),
    ("log out", "delete session:7\r\nget session:7\r\n", "DELETED END"),
    ("a mistake, answered and survived", "incr visits x\r\n", "CLIENT_ERROR invalid numeric delta argument"),
];

/// Starts the proxy and drives it.
pub(crate) async fn run() -> Result<Vec<DemoRow>, StartError> {
    let config = check_text("demo", CONFIG)?;
    let (reloads, _) = mpsc::channel(1);
    let running = Running::<Memcached>::start(config, Handle::current(), reloads)?;
    let address: Address = running.addresses().into_iter().next().ok_or("the proxy does not listen")?;
    let mut stream = connect(&address, None, std::time::Duration::from_secs(5)).await?;
    let mut rows = Vec::new();
    for (what, request, expected) in EXCHANGES {
        stream.send(&mut request.as_bytes()).await?;
        let seen = hear(&mut stream, expected.len()).await?;
        let good = seen == expected;
        rows.push(DemoRow::new(what, seen, good));
    }
    Ok(rows)
}

/// Hears frames until their text is as long as what is expected.
async fn hear(stream: &mut Stream, expected_len: usize) -> Result<String, StartError> {
    let (mut input, mut heard) = (BytesMut::new(), Vec::new());
    loop {
        while let Some(frame) = classic::decode(&mut input, &Limits::default())? {
            match frame {
                classic::Frame::Line(line) => heard.push(line),
                classic::Frame::Value { line, value } => heard.extend([line, value]),
            }
        }
        let text = heard.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join(" ");
        if text.len() >= expected_len {
            return Ok(text);
        }
        if stream.fill(&mut input).await? == 0 {
            return Err("the proxy hung up".into());
        }
    }
}
