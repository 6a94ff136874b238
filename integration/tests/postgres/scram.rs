//! SCRAM as no library speaks it, beside PostgreSQL's own answers.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::{Kind, Postgres, Proxy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;

use super::auth::{BOUND, Front, bound};
use super::{CONFIG, code, connect, run};

/// A client that says what no library would.
struct Raw<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Says hello as `app`, and hears the offer of mechanisms.
    async fn start(mut stream: S) -> Result<Raw<S>> {
        let parameters = b"\0\x03\0\0user\0app\0database\0shop\0\0";
        let length = u32::try_from(parameters.len() + 4)?.to_be_bytes();
        stream.write_all(&[&length, &parameters[..]].concat()).await?;
        let mut raw = Raw(stream);
        let (tag, body) = raw.next().await?;
        ensure!(tag == b'R' && body.starts_with(&[0, 0, 0, 10]), "no SASL: {tag} {body:?}");
        Ok(raw)
    }

    async fn next(&mut self) -> Result<(u8, Vec<u8>)> {
        let tag = self.0.read_u8().await?;
        let length = usize::try_from(self.0.read_u32().await?)?.saturating_sub(4);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok((tag, body))
    }

    async fn say(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4)?.to_be_bytes();
        Ok(self.0.write_all(&[&[tag][..], &length, body].concat()).await?)
    }

    /// Says all of it, whatever is answered; then code, message and detail of the error.
    async fn offend(mut self, messages: &[(u8, Vec<u8>)]) -> Result<[String; 3]> {
        for (tag, body) in messages {
            self.say(*tag, body).await?;
        }
        loop {
            let (tag, body) = self.next().await?;
            if tag == b'E' {
                let field = |kind: u8| {
                    let found = body.split(|b| *b == 0).find_map(|field| field.strip_prefix(&[kind]));
                    String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
                };
                return Ok([field(b'C'), field(b'M'), field(b'D')]);
            }
        }
    }
}

fn initial(mechanism: &str, first: &str) -> (u8, Vec<u8>) {
    let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
    (b'p', [mechanism.as_bytes(), b"\0", &length, first.as_bytes()].concat())
}

fn response(last: &str) -> (u8, Vec<u8>) {
    (b'p', last.as_bytes().to_vec())
}

#[test]
fn scram_out_of_order_is_refused_in_postgresqls_words() -> Result<()> {
    run(async {
        let (server, proxy) = super::proxy(1)?;
        let scram = "SCRAM-SHA-256";
        let no_data = (b'p', [scram.as_bytes(), b"\0\xff\xff\xff\xff"].concat());
        let scripts: Vec<Vec<(u8, Vec<u8>)>> = vec![
            vec![(b'Q', b"SELECT 1\0".to_vec())],
            vec![response("c=biws,r=x,p=AAAA")],
            vec![initial("SCRAM-SHA-1", "n,,n=,r=x")],
            vec![initial("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=x")],
            vec![initial(scram, "")],
            vec![initial(scram, "p=tls-server-end-point,,n=,r=x")],
            vec![initial(scram, "n,a=root,n=,r=x")],
            vec![initial(scram, "n,,m=x,n=,r=x")],
            vec![initial(scram, "n,,r=x,n=")],
            vec![initial(scram, "q,,n=,r=x")],
            vec![initial(scram, "n,,n=,r=\u{e9}")],
            vec![initial(scram, "n,,n=,r=x"), (b'Q', b"SELECT 1\0".to_vec())],
            vec![initial(scram, "n,,n=,r=x"), initial(scram, "n,,n=,r=x")],
            vec![initial(scram, "n,,n=,r=x"), response("n,,n=,r=x")],
            vec![initial(scram, "n,,n=,r=x"), response("")],
            vec![initial(scram, "n,,n=,r=x"), response("c=eSws,r=x,p=AAAA")],
            vec![initial(scram, "n,,n=,r=x"), response("c=biws,r=x,p=AAAA")],
            vec![initial(scram, "n,,n=,r=x"), response("c=biws,r=x")],
            vec![
                initial(scram, "n,,n=,r=x"),
                response("c=biws,r=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ],
            vec![no_data.clone(), response("x")],
            vec![no_data, response("n,,n=,r=x"), response("c=biws,r=x,p=")],
        ];
        for script in &scripts {
            let theirs =
                Raw::start(TcpStream::connect(server.address()).await?).await?.offend(script).await?;
            let ours = Raw::start(TcpStream::connect(proxy.address()).await?).await?.offend(script).await?;
            assert_eq!(ours, theirs, "{script:?}");
        }
        // PostgreSQL hangs up on these; the length alone is enough for that.
        let mut raw = Raw::start(TcpStream::connect(proxy.address()).await?).await?;
        raw.0.write_all(b"p\0\x10\0\0").await?;
        assert_eq!(raw.offend(&[]).await?[..2], ["08P01", "invalid message length"]);
        Ok(())
    })
}

/// TLS as PostgreSQL starts it.
async fn secured(
    address: std::net::SocketAddr,
    ca: &Path,
) -> Result<Raw<tokio_rustls::client::TlsStream<TcpStream>>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    ensure!(stream.read_u8().await? == b'S', "no TLS");
    Raw::start(harness::tls::connect(stream, "localhost", ca, None).await?).await
}

#[test]
fn whoever_takes_the_offer_of_binding_away_is_found_out() -> Result<()> {
    run(async {
        let (server, front) = (Postgres::builder().tls().start()?, Front::new()?);
        let proxy = bound(&server, &front, BOUND)?;
        let trusted = server.authority().context("the server has TLS")?.certificate();
        let plus = "SCRAM-SHA-256-PLUS";
        let bound = initial(plus, "p=tls-server-end-point,,n=,r=x");
        for script in [
            vec![initial("SCRAM-SHA-256", "y,,n=,r=x")],
            vec![initial("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=x")],
            vec![initial(plus, "n,,n=,r=x")],
            vec![initial(plus, "y,,n=,r=x")],
            vec![initial(plus, "p=tls-unique,,n=,r=x")],
            // Bound to another certificate than the one that was shown.
            vec![bound.clone(), response("c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsQUFBQQ==,r=x,p=AAAA")],
            vec![bound, response("c=biws,r=x,p=AAAA")],
        ] {
            let theirs = secured(server.address(), &trusted).await?.offend(&script).await?;
            let ours =
                secured(proxy.address(), &front.authority.certificate()).await?.offend(&script).await?;
            assert_eq!(ours, theirs, "{script:?}");
        }
        Ok(())
    })
}

#[test]
fn who_stalls_is_one_of_few_and_not_for_long() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let config = format!("{CONFIG}limits: {{login: 2s, logins: 2}}\n");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let proxy = builder.set("SIZE", 1).set("WAIT", "5s").start()?;
        let stalled = [
            Raw::start(TcpStream::connect(proxy.address()).await?).await?,
            Raw::start(TcpStream::connect(proxy.address()).await?).await?,
        ];
        for _ in 0..50 {
            assert_eq!(code(connect(&proxy, "shop").await), SqlState::TOO_MANY_CONNECTIONS);
        }
        let timeout = ["57014", "canceling authentication due to timeout", ""].map(str::to_owned);
        for (raw, script) in stalled.into_iter().zip([vec![], vec![initial("SCRAM-SHA-256", "n,,n=,r=x")]]) {
            assert_eq!(raw.offend(&script).await?, timeout);
        }
        // Their places are free again.
        connect(&proxy, "shop").await?;
        Ok(())
    })
}
