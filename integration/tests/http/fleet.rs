//! Many small servers on one thread, and clients that cost next to nothing: enough for thousands of requests a second on
//! a machine that runs the proxy too.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

type Answer = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;
type Handler = Arc<dyn Fn(Arc<Server>, Message) -> Answer + Send + Sync>;

/// A request or a reply.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads messages from a connection, one after the other.
#[derive(Default)]
pub(crate) struct Inbox(Vec<u8>);

impl Inbox {
    /// The next message; `None` where the connection ends between two.
    pub(crate) async fn next(&mut self, stream: &mut TcpStream) -> Result<Option<Message>> {
        let mut part = [0; 4096];
        let head_end = loop {
            if let Some(at) = self.0.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut part).await? {
                0 if self.0.is_empty() => return Ok(None),
                0 => bail!("the connection ended in the midst of a head"),
                count => self.0.extend_from_slice(&part[..count]),
            }
        };
        let head = String::from_utf8(self.0.drain(..head_end).collect())?;
        let mut message = Message { head, body: Vec::new() };
        let length: usize = match message.header("content-length") {
            Some(length) => length.parse()?,
            None => 0,
        };
        while self.0.len() < length {
            match stream.read(&mut part).await? {
                0 => bail!("the connection ended in the midst of a body"),
                count => self.0.extend_from_slice(&part[..count]),
            }
        }
        message.body = self.0.drain(..length).collect();
        Ok(Some(message))
    }
}

/// One server, and what it has seen.
pub(crate) struct Server {
    pub(crate) index: usize,
    pub(crate) address: SocketAddr,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) most_in_flight: AtomicUsize,
    pub(crate) served: AtomicUsize,
    /// The targets it was asked for, in their order.
    pub(crate) targets: Mutex<Vec<String>>,
    stop: CancellationToken,
}

/// Servers that answer by one function.
pub(crate) struct Fleet {
    pub(crate) servers: Vec<Arc<Server>>,
    handler: Handler,
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fleet {
    pub(crate) fn start<H, F>(count: usize, handler: H) -> Result<Self>
    where
        H: Fn(Arc<Server>, Message) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let token = stop.clone();
        let thread = std::thread::spawn(move || runtime.block_on(token.cancelled()));
        let handler: Handler = Arc::new(move |server, asked| Box::pin(handler(server, asked)));
        let mut fleet = Self { servers: Vec::new(), handler, runtime: handle, stop, thread: Some(thread) };
        for _ in 0..count {
            fleet.add()?;
        }
        Ok(fleet)
    }

    /// One more server.
    pub(crate) fn add(&mut self) -> Result<Arc<Server>> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let server = Arc::new(Server {
            index: self.servers.len(),
            address: listener.local_addr()?,
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            targets: Mutex::default(),
            stop: self.stop.child_token(),
        });
        let (stop, handler) = (server.stop.clone(), Arc::clone(&self.handler));
        let accepting = accept(listener, Arc::clone(&server), handler);
        self.runtime.spawn(async move { stop.run_until_cancelled(accepting).await });
        self.servers.push(Arc::clone(&server));
        Ok(server)
    }

    /// As the configuration lists them.
    pub(crate) fn addresses(&self) -> String {
        self.servers.iter().map(|server| server.address.to_string()).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn served(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.served.load(Ordering::SeqCst)).collect()
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.servers.iter().map(|server| server.most_in_flight.load(Ordering::SeqCst)).max().unwrap_or(0)
    }
}

impl Server {
    /// Stops listening and drops its connections.
    pub(crate) fn crash(&self) {
        self.stop.cancel();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, server: Arc<Server>, handler: Handler) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (server, handler) = (Arc::clone(&server), Arc::clone(&handler));
        let stop = server.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(serve(stream, server, handler)).await });
    }
}

async fn serve(mut stream: TcpStream, server: Arc<Server>, handler: Handler) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Inbox::default();
    while let Some(asked) = inbox.next(&mut stream).await? {
        let now = server.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        server.most_in_flight.fetch_max(now, Ordering::SeqCst);
        server.targets.lock().unwrap().push(asked.target().to_owned());
        let answer = handler(Arc::clone(&server), asked).await;
        server.in_flight.fetch_sub(1, Ordering::SeqCst);
        server.served.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&answer).await?;
    }
    Ok(())
}

/// A whole reply.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A client's connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    inbox: Inbox,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: Inbox::default() })
    }

    pub(crate) async fn send(&mut self, request: &str) -> Result<()> {
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    pub(crate) async fn reply(&mut self) -> Result<Message> {
        let reply = tokio::time::timeout(harness::PATIENCE, self.inbox.next(&mut self.stream)).await;
        reply.context("no reply in time")??.context("closed without a reply")
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Result<Message> {
        self.send(request).await?;
        self.reply().await
    }

    /// Asks for a path, and wants a 200.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Message> {
        let reply = self.ask(&get(path)).await?;
        ensure!(reply.status() == 200, "{path} was answered by {reply:?}");
        Ok(reply)
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
}
