//! HTTP/2 with real clients and servers, and with clients that mean harm.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use harness::{App, Authority, Kind, PATIENCE, Port, Proxy, Scripted, http, paths, python};
use tokio::runtime::Runtime;

use super::clients::app;
use super::proxy_to;

/// One app over HTTP/1.1, gRPC over HTTP/2, and ourselves once more, over TLS.
const GRPC: &str = "
listeners: [{address: $LISTEN}, {address: $SECOND, tls: {certificate: $CERTIFICATE, key: $KEY}}]
admin: {address: $ADMIN}
apps:
  grpc: {hosts: [grpc.test], endpoints: [$APP], protocol: http2}
  twice:
    hosts: [twice.test]
    endpoints: [$SECOND]
    protocol: auto
    tls: {ca: $CA, server_name: grpc.test}
    request_headers: {set: {Host: grpc.test}}
";

#[test]
fn grpc_is_content() {
    let port = Port::reserve().unwrap();
    let _app = app("grpc_app.py", &port);
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    let issued = authority.issue("proxy", &["grpc.test"]).unwrap();
    let proxy = Proxy::of(Kind::Http)
        .config(GRPC)
        .set("APP", &port)
        .set("CERTIFICATE", issued.certificate.display())
        .set("KEY", issued.key.display())
        .set("CA", authority.certificate().display())
        .port("SECOND")
        .start()
        .unwrap();
    let counts = python::pytest(
        "grpc clients",
        Path::new(&paths::repository().join("integration/python")),
        &["grpc_clients.py"],
        &[("GROOVE_ADDRESS", proxy.address().to_string())],
    )
    .unwrap();
    assert_eq!((counts.failed, counts.skipped, counts.passed), (0, 0, 14));
}

/// curl with its arguments: what it wrote.
fn curl(arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(paths::program("curl")?).args(["-sS", "--max-time", "20"]).args(arguments).output()?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn curl_gets_sends_and_asks_for_heads() {
    let shop = App::start(|asked| async move { http::echo(&asked) }).unwrap();
    let proxy = proxy_to(shop.address()).unwrap();
    let url = format!("http://{}/x?y=1", proxy.address());
    let common = ["--http2-prior-knowledge", "-H", "Host: shop.test", "-w", " %{http_version} %{http_code}"];
    let with = |more: &[&str]| curl(&[&common[..], more, &[&url]].concat()).unwrap();
    assert_eq!(with(&[]), "GET /x?y=1 0 2 200");
    assert_eq!(with(&["-d", "abc"]), "POST /x?y=1 3 2 200");
    assert_eq!(with(&["-X", "PUT", "-H", "Expect: 100-continue", "-d", "abc"]), "PUT /x?y=1 3 2 200");
    assert!(with(&["-I"]).starts_with("HTTP/2 200"));
    // Bytes that have no length beforehand, and more of them than a window takes.
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), vec![b'x'; 3 << 20]).unwrap();
    let path = body.path().display().to_string();
    assert_eq!(with(&["-X", "POST", "-H", "Content-Length:", "-T", &path]), "POST /x?y=1 3145728 2 200");
    let received = shop.received();
    assert!(received.iter().all(|asked| asked.headers()["host"] == "shop.test"), "{received:?}");
    assert!(received.iter().all(|asked| asked.headers()["x-forwarded-proto"] == "http"), "{received:?}");
    // A host that no app has, and a target that is none.
    let lost =
        curl(&["--http2-prior-knowledge", "-w", " %{http_code}", &format!("http://{}/", proxy.address())]);
    assert!(lost.unwrap().ends_with(" 404"));
}

/// A client of its own runtime.
struct Client {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (requests, connection) = runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            h2::client::handshake(socket).await.unwrap()
        });
        let connection = runtime.spawn(connection);
        Client { runtime, requests, connection }
    }

    /// Runs, within the time that a test has.
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await }).unwrap()
    }

    fn get(path: &str) -> ::http::Request<()> {
        ::http::Request::get(format!("http://shop.test{path}")).body(()).unwrap()
    }
}

async fn read(body: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

#[test]
fn interim_replies_and_trailers_come_through() {
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        let _left = stream.write_all(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
              Trailer: X-Sum\r\nKeep-Alive: timeout=5\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut client = Client::connect(proxy.address());
    let (mut response, _) = client.requests.send_request(Client::get("/"), true).unwrap();
    client.run(async {
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(
            (interim.status().as_u16(), &interim.headers()["link"]),
            (103, &"</a.css>".parse().unwrap())
        );
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!(parts.status, 200);
        assert!(
            parts.headers.get("keep-alive").is_none() && parts.headers.get("transfer-encoding").is_none()
        );
        assert_eq!(read(&mut body).await.unwrap(), b"hello");
        assert_eq!(body.trailers().await.unwrap().expect("trailers")["x-sum"], "7");
    });
}

#[test]
fn a_reply_that_is_cut_short_is_not_taken_for_whole() {
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut client = Client::connect(proxy.address());
    let (response, _) = client.requests.send_request(Client::get("/"), true).unwrap();
    client.run(async {
        // The reset may overtake what there was.
        let error = match response.await {
            Ok(response) => read(&mut response.into_body()).await.expect_err("less than promised"),
            Err(error) => error,
        };
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    });
}

#[test]
fn a_stream_that_is_reset_is_a_client_that_left() {
    let ((asked, is_asked), (gone, is_gone)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let app = Scripted::start(move |_, mut stream| {
        let mut part = [0; 4096];
        let _asked = stream.read(&mut part);
        let _nobody = asked.send(());
        let ended = matches!(stream.read(&mut part), Ok(0) | Err(_));
        let _nobody = gone.send(ended);
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut client = Client::connect(proxy.address());
    let (response, mut stream) = client.requests.send_request(Client::get("/"), true).unwrap();
    // Not before the app has it.
    is_asked.recv_timeout(PATIENCE).expect("the app is asked");
    stream.send_reset(h2::Reason::CANCEL);
    client.run(response).expect_err("reset");
    assert!(is_gone.recv_timeout(PATIENCE).expect("the app is told"));
}

/// A WebSocket's upgrade by hand, then an echo of what comes.
fn echoing() -> Result<Scripted> {
    Scripted::start(|_, mut stream| {
        let (mut asked, mut part) = (Vec::new(), [0; 4096]);
        while !asked.ends_with(b"\r\n\r\n") {
            match stream.read(&mut part) {
                Ok(0) | Err(_) => return,
                Ok(count) => asked.extend_from_slice(&part[..count]),
            }
        }
        let asked = String::from_utf8_lossy(&asked).to_ascii_lowercase();
        if !asked.contains("\r\nupgrade: websocket\r\n") || !asked.contains("\r\nsec-websocket-key: ") {
            let _left = stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        let _left = stream.write_all(agreed);
        while let Ok(count @ 1..) = stream.read(&mut part) {
            let _left = stream.write_all(&part[..count]);
        }
    })
}

/// RFC 8441: a WebSocket in a stream, before a server of HTTP/1.1 and, through ourselves, of HTTP/2.
#[test]
fn websockets_are_streams_like_others() {
    const TWICE: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop: {hosts: [shop.test], endpoints: [$APP]}
  twice:
    hosts: [twice.test]
    endpoints: [$LISTEN]
    protocol: http2
    request_headers: {set: {Host: shop.test}}
";
    let app = echoing().unwrap();
    let proxy = Proxy::of(Kind::Http).config(TWICE).set("APP", app.address()).start().unwrap();
    let mut client = Client::connect(proxy.address());
    // What the server can do it says in its settings: they are there with the first answer.
    client
        .run(async { client.requests.clone().send_request(Client::get("/"), true).unwrap().0.await })
        .unwrap();
    assert!(client.requests.is_extended_connect_protocol_enabled());
    for host in ["shop.test", "twice.test"] {
        let mut request = ::http::Request::connect(format!("http://{host}/chat"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut stream) = client.requests.send_request(request, false).unwrap();
        client.run(async {
            let (parts, mut body) = response.await.unwrap().into_parts();
            assert_eq!(
                (parts.status.as_u16(), &parts.headers["sec-websocket-protocol"]),
                (200, &"chat".parse().unwrap())
            );
            assert!(
                parts.headers.get("sec-websocket-accept").is_none() && parts.headers.get("upgrade").is_none()
            );
            for index in 0..50 {
                let said = format!("{host} {index}");
                stream.send_data(said.clone().into(), false).unwrap();
                let mut heard = Vec::new();
                while heard.len() < said.len() {
                    let data = body.data().await.expect("an echo").unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    heard.extend_from_slice(&data);
                }
                assert_eq!(heard, said.as_bytes());
            }
            // Who has said all hears the rest.
            stream.send_data(Bytes::new(), true).unwrap();
            assert_eq!(read(&mut body).await.unwrap(), b"");
        });
    }
    // A client of HTTP/1.1 before a server of HTTP/2: what it is to hear is computed of its key.
    let asked = "GET /chat HTTP/1.1\r\nHost: twice.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let agreed = super::talk(proxy.address(), asked.as_bytes(), "\r\n\r\n").unwrap();
    assert!(agreed.starts_with("HTTP/1.1 101 "), "{agreed}");
    assert!(
        agreed.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{agreed}"
    );
}

#[test]
fn a_drain_lets_streams_end_and_takes_no_more() {
    let ((asked, is_asked), (answer, may_answer)) =
        (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let may_answer = std::sync::Mutex::new(may_answer);
    let app = Scripted::start(move |_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        let _nobody = asked.send(());
        let _told = may_answer.lock().unwrap().recv();
        let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    })
    .unwrap();
    let mut proxy = proxy_to(app.address()).unwrap();
    let mut client = Client::connect(proxy.address());
    let (response, _) = client.requests.send_request(Client::get("/"), true).unwrap();
    is_asked.recv_timeout(PATIENCE).expect("the app is asked");
    proxy.signal(harness::Signal::TERM).unwrap();
    // The client hears of it while its stream is under way.
    client.run(async {
        while client.requests.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    answer.send(()).unwrap();
    client.run(async {
        let mut body = response.await.unwrap().into_body();
        assert_eq!(read(&mut body).await.unwrap(), b"hello");
    });
    client.runtime.block_on(&mut client.connection).unwrap().expect("it ends in order");
    assert!(proxy.exit(PATIENCE).unwrap().success());
}

/// A server that takes nothing slows its client down; what is held is bounded.
#[test]
fn a_body_is_sent_no_faster_than_it_is_taken() {
    let (took, may_take) = std::sync::mpsc::channel::<()>();
    let may_take = std::sync::Mutex::new(may_take);
    let app = Scripted::start(move |_, mut stream| {
        let _told = may_take.lock().unwrap().recv();
        let mut part = vec![0; 1 << 16];
        let (mut all, mut end) = (0, Vec::new());
        // Chunks, until the last one's end: that may come by itself.
        while let Ok(count @ 1..) = stream.read(&mut part) {
            all += count;
            end.extend_from_slice(&part[count.saturating_sub(7)..count]);
            end.drain(..end.len().saturating_sub(7));
            if end == b"\r\n0\r\n\r\n" {
                break;
            }
        }
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{all:8}");
        let _left = stream.write_all(said.as_bytes());
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut client = Client::connect(proxy.address());
    let request = ::http::Request::post("http://shop.test/").body(()).unwrap();
    let (response, mut stream) = client.requests.send_request(request, false).unwrap();
    let size = 64 << 20;
    let sent = client.run(async {
        let mut sent = 0;
        // Until nothing moves: the sockets between hold some megabytes.
        while sent < size {
            stream.reserve_capacity(1 << 16);
            let more = std::future::poll_fn(|cx| stream.poll_capacity(cx));
            let Ok(Some(room)) = tokio::time::timeout(Duration::from_secs(2), more).await else { break };
            let room = room.unwrap();
            stream.send_data(vec![b'x'; room].into(), false).unwrap();
            sent += room;
        }
        sent
    });
    assert!(sent < size / 2, "{sent} bytes went although nobody took them");
    took.send(()).unwrap();
    client.run(async {
        stream.send_data(Bytes::new(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let all: usize = String::from_utf8(read(&mut body).await.unwrap()).unwrap().trim().parse().unwrap();
        assert!(all >= sent, "{all} of {sent}");
    });
}

/// A frame's header (RFC 9113, 4.1), and its payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Frames come from a client that means harm until it is told to go: GOAWAY's error code. Another client notices nothing.
fn flood(mut frames: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> u32 {
    let shop = App::saying("here").unwrap();
    let proxy = proxy_to(shop.address()).unwrap();
    let mut other = Client::connect(proxy.address());
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let flooding = std::thread::spawn(move || {
        for round in 0..20_000 {
            if sender.write_all(&frames(round)).is_err() {
                return;
            }
        }
    });
    let mut read = Vec::new();
    let mut part = [0; 4096];
    let code = loop {
        let mut rest = &read[..];
        let mut code = None;
        while let Some(header) = rest.get(..9) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some(payload) = rest.get(9..9 + length) else { break };
            if header[3] == 7 {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
            rest = &rest[9 + length..];
        }
        if let Some(code) = code {
            break code;
        }
        let count = stream.read(&mut part).unwrap_or(0);
        assert!(count > 0, "closed, or silent, without a word");
        read.extend_from_slice(&part[..count]);
    };
    let (response, _) = other.requests.send_request(Client::get("/"), true).unwrap();
    assert_eq!(other.run(response).unwrap().status(), 200);
    drop(stream);
    flooding.join().unwrap();
    code
}

const ENHANCE_YOUR_CALM: u32 = 0xb;

#[test]
fn floods_are_told_to_go() {
    // GET / of shop.test, in HPACK without a table.
    let get = b"\x82\x86\x84\x41\x09shop.test";
    let reset = |round: u32| {
        let stream = 2 * round + 1;
        [frame(1, 0x5, stream, get), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    };
    assert_eq!(flood(reset), ENHANCE_YOUR_CALM, "rapid reset");
    assert_eq!(flood(|_| frame(6, 0, 0, &[0; 8])), ENHANCE_YOUR_CALM, "pings");
    assert_eq!(flood(|_| frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])), ENHANCE_YOUR_CALM, "settings");
    assert_eq!(flood(|_| frame(2, 0, 1, &[0, 0, 0, 0, 16])), ENHANCE_YOUR_CALM, "priorities");
    let endless = |round| match round {
        0 => frame(1, 0x1, 1, get),
        _ => frame(9, 0, 1, &[]),
    };
    assert_eq!(flood(endless), ENHANCE_YOUR_CALM, "empty continuations");
    let fat = |round| match round {
        0 => frame(1, 0x1, 1, get),
        _ => frame(9, 0, 1, &[b"\x00\x04fat1\x7f\x81\x07".as_slice(), &[b'x'; 1022]].concat()),
    };
    assert_ne!(flood(fat), 0, "a head without end");
}
