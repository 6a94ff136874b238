//! The `demo` verb: two tiny apps, the proxy in front, and a client that looks at what comes through.

use crate::Http;
use crate::config::Config;
use crate::wire::scan::HeadScan;
use crate::wire::{Body, Fields, Framing, Limits, Name, ReplyHead, RequestHead};
use bytes::{Buf, BytesMut};
use groove_common::app::{DemoRow, Running, StartError};
use groove_common::config::check_text;
use groove_common::ids::Address;
use groove_common::net::{Stream, connect};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

const TIME_MAX: Duration = Duration::from_secs(5);
const REQUESTS: usize = 2000;

const CONFIG: &str = r#"
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
apps:
  shop:
    hosts: [shop.example.test, "*.shop.example.test"]
    endpoints: [BLUE, GREEN]
    request_headers: {set: {X-Team: shop}}
    response_headers: {remove: [Server]}
    clusters: {green: {endpoints: [GREEN]}}
    routes: [{match: {path: /green/*}, cluster: green}]
"#;

/// Starts everything in this process, drives it, and tells what was seen.
pub(crate) async fn run() -> Result<Vec<DemoRow>, StartError> {
    let (blue, blue_task) = start_app("blue").await?;
    let (green, _green_task) = start_app("green").await?;
    let text = CONFIG.replace("BLUE", &blue).replace("GREEN", &green);
    let config: Config = check_text("demo", &text)?;
    let (reloads, _reloads) = tokio::sync::mpsc::channel(1);
    let proxy: Running<Http> = Running::start(config, Handle::current(), reloads)?;
    let address = proxy.addresses().into_iter().next().ok_or("the proxy does not listen")?;

    let mut rows = Vec::new();
    let mut client = Client::connect(&address).await?;
    rows.push(throughput(&mut client).await?);
    let reply = client.ask("GET /green/x HTTP/1.1\r\nHost: SHOP.example.test:80\r\n\r\n").await?;
    rows.push(row("a path of its own servers", reply.app(), reply.status == 200 && reply.app() == "green"));
    let reply = client.ask("GET / HTTP/1.1\r\nHost: eu.shop.example.test\r\nX-Team: forged\r\n\r\n").await?;
    let edited = reply.body.contains("X-Team: shop\n") && !reply.body.contains("forged") && !reply.has_server;
    rows.push(row(
        "headers edited both ways",
        if edited { "X-Team set, Server removed" } else { "not edited" },
        edited,
    ));
    let identity =
        reply.body.contains("X-Forwarded-For: 127.0.0.1\n") && reply.body.contains("X-Request-Id: ");
    rows.push(row("the app learns who asks", "X-Forwarded-For, X-Request-Id", identity));
    let chunked = "POST / HTTP/1.1\r\nHost: shop.example.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let reply = client.ask(chunked).await?;
    rows.push(row("a chunked body", format!("{} bytes arrived", reply.uploaded()), reply.uploaded() == 5));
    let reply = client.ask("GET / HTTP/1.1\r\nHost: nobody.example.test\r\n\r\n").await?;
    rows.push(row("an unknown host", format!("status {}", reply.status), reply.status == 404));
    let smuggled = "POST / HTTP/1.1\r\nHost: shop.example.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let reply = client.ask(smuggled).await?;
    rows.push(row("a smuggled request", format!("status {}, closed", reply.status), reply.status == 400));

    blue_task.abort();
    let mut client = Client::connect(&address).await?;
    let mut answered = 0;
    for _ in 0..100 {
        answered +=
            usize::from(client.ask("GET / HTTP/1.1\r\nHost: shop.example.test\r\n\r\n").await?.status == 200);
    }
    rows.push(row("one of two servers stopped", format!("{answered} of 100 answered"), answered == 100));
    proxy.drain(Duration::from_secs(1), std::future::pending()).await;
    Ok(rows)
}

fn row(what: &str, seen: impl Into<String>, good: bool) -> DemoRow {
    DemoRow::new(what, seen, good)
}

async fn throughput(client: &mut Client) -> Result<DemoRow, StartError> {
    let mut by_app: BTreeMap<String, usize> = BTreeMap::new();
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let reply = client.ask("GET / HTTP/1.1\r\nHost: shop.example.test\r\n\r\n").await?;
        *by_app.entry(reply.app().to_owned()).or_default() += 1;
    }
    let each = began.elapsed() / u32::try_from(REQUESTS)?;
    let shares = by_app.iter().map(|(app, count)| format!("{app} {count}")).collect::<Vec<_>>().join(", ");
    let even = by_app.len() == 2 && by_app.values().all(|count| *count > REQUESTS / 4);
    Ok(row(
        "requests over two servers",
        format!("{shares}; {} µs each, one after the other", each.as_micros()),
        even,
    ))
}

/// An app that answers every request with what it was sent.
async fn start_app(name: &'static str) -> Result<(String, AbortHandle), StartError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let task = tokio::spawn(async move {
        // Its connections end with it.
        let mut sessions = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            sessions.spawn(serve(name, Stream::from(socket)));
        }
    });
    Ok((address, task.abort_handle()))
}

async fn serve(name: &'static str, mut stream: Stream) -> io::Result<()> {
    let mut inbox = BytesMut::new();
    while let Some(length) = read_head(&mut stream, &mut inbox).await? {
        let (framing, mut answer) = {
            let mut fields = Fields::default();
            let raw = inbox.get(..length).unwrap_or_default();
            let head = RequestHead::parse(raw, &Limits::default(), &mut fields).map_err(io::Error::other)?;
            (head.framing, String::from_utf8_lossy(raw).replace('\r', ""))
        };
        inbox.advance(length);
        let uploaded = read_body(&mut stream, &mut inbox, framing).await?.len();
        answer.push_str(&format!("app={name}\nuploaded={uploaded}\n"));
        let head = format!("HTTP/1.1 200 OK\r\nServer: demo\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.send(&mut (head + &answer).as_bytes()).await?;
    }
    Ok(())
}

/// The length of the next head, or `None` at the end.
async fn read_head(stream: &mut Stream, inbox: &mut BytesMut) -> io::Result<Option<usize>> {
    let mut scan = HeadScan::default();
    loop {
        if let Some(length) = scan.advance(inbox, &Limits::default()).map_err(io::Error::other)? {
            return Ok(Some(length));
        }
        if stream.fill(inbox).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_body(stream: &mut Stream, inbox: &mut BytesMut, framing: Framing) -> io::Result<Vec<u8>> {
    let (mut body, mut data) = (Body::new(framing), Vec::new());
    loop {
        let taken = body
            .advance(inbox, &Limits::default(), |run| data.extend_from_slice(run))
            .map_err(io::Error::other)?;
        inbox.advance(taken);
        if body.is_done() {
            return Ok(data);
        }
        if stream.fill(inbox).await? == 0 {
            return if body.closed() { Ok(data) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

struct Client {
    stream: Stream,
    inbox: BytesMut,
}

struct Reply {
    status: u16,
    has_server: bool,
    body: String,
}

impl Client {
    async fn connect(address: &Address) -> io::Result<Self> {
        Ok(Self { stream: connect(address, None, TIME_MAX).await?, inbox: BytesMut::new() })
    }

    async fn ask(&mut self, request: &str) -> Result<Reply, StartError> {
        Ok(tokio::time::timeout(TIME_MAX, self.exchange(request)).await??)
    }

    async fn exchange(&mut self, request: &str) -> io::Result<Reply> {
        self.stream.send(&mut request.as_bytes()).await?;
        let length = read_head(&mut self.stream, &mut self.inbox).await?;
        let length = length.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (status, framing, has_server) = {
            let mut fields = Fields::default();
            let raw = self.inbox.get(..length).unwrap_or_default();
            let head =
                ReplyHead::parse(raw, false, &Limits::default(), &mut fields).map_err(io::Error::other)?;
            let has_server = head.fields.iter().any(|field| {
                field.known == Name::Other && field.name.of(raw).eq_ignore_ascii_case(b"server")
            });
            (head.status, head.framing, has_server)
        };
        self.inbox.advance(length);
        let body = read_body(&mut self.stream, &mut self.inbox, framing).await?;
        Ok(Reply { status, has_server, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

impl Reply {
    fn line(&self, key: &str) -> &str {
        self.body.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default()
    }

    fn app(&self) -> &str {
        self.line("app=")
    }

    fn uploaded(&self) -> usize {
        self.line("uploaded=").parse().unwrap_or_default()
    }
}
