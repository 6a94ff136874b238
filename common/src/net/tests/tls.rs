//! TLS on listeners and towards servers, with certificates made on the spot.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::config::{CertificateFile, ClientAuth, ClientTls, KeyFile, ServerTls, Verify};

/// A folder with an authority and what it signed.
pub(super) struct Pki {
    folder: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let folder = tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        Self { folder, ca }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn ca(&self) -> CertificateFile {
        CertificateFile(self.path("ca.pem"))
    }

    /// Signs a certificate for `host` (and a SPIFFE id) into `file`.pem and `file`.key.
    fn issue(&self, file: &str, host: &str) -> (CertificateFile, KeyFile) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(format!("spiffe://test/{file}").try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let (pem, key_pem) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        fs::write(&pem, certificate.pem()).unwrap();
        fs::write(&key_pem, key.serialize_pem()).unwrap();
        (CertificateFile(pem), KeyFile(key_pem))
    }

    pub(super) fn server(&self, host: &str) -> ServerTls {
        let (certificate, key) = self.issue("server", host);
        ServerTls { certificate, key, certificates: Vec::new(), client_ca: None, client_auth: None }
    }

    pub(super) fn client(&self) -> ClientTls {
        ClientTls { ca: Some(self.ca()), server_name: Some("db.test".to_owned()), ..ClientTls::default() }
    }

    fn client_with_certificate(&self) -> ClientTls {
        let (certificate, key) = self.issue("client", "client.test");
        ClientTls { certificate: Some(certificate), key: Some(key), ..self.client() }
    }
}

pub(super) async fn dial(address: &Address, tls: &ClientTls) -> std::io::Result<ScriptedPeer> {
    let connector = Connector::new(tls, &[b"other", b"echo/1"]).unwrap();
    connect(address, Some(&connector), PATIENCE).await.map(ScriptedPeer::new)
}

/// Connects and is served. TLS 1.3 tells a client that its certificate is not liked only after the handshake.
async fn is_served(address: &Address, tls: &ClientTls) -> bool {
    let Ok(mut client) = dial(address, tls).await else { return false };
    let stream = client.stream();
    let mut buf = BytesMut::new();
    stream.send(&mut &b"ping"[..]).await.is_ok() && stream.fill(&mut buf).await.is_ok_and(|read| read > 0)
}

#[tokio::test]
async fn bytes_name_and_protocol_come_through() {
    let pki = Pki::new();
    let echo = Arc::<Echo>::default();
    let service = Service::shared(Arc::clone(&echo)).alpn(&[b"echo/1"]);
    let world = World::of(service, echo, 0);
    let address = world.listen_tcp(|listener| listener.tls = Some(pki.server("db.test")));
    let mut client = dial(&address, &pki.client()).await.unwrap();
    let large = vec![b'x'; 1 << 20];
    let (mut sent, mut got) = (large.as_slice(), BytesMut::new());
    // Both ways at once, as neither side holds a megabyte back.
    soon(std::future::poll_fn(|cx| {
        let stream = client.stream();
        let sending = stream.poll_send(cx, &mut sent).map(Result::unwrap);
        while let std::task::Poll::Ready(read) = stream.poll_fill(cx, &mut got) {
            assert!(read.unwrap() > 0);
        }
        if got.len() < large.len() { std::task::Poll::Pending } else { sending }
    }))
    .await;
    assert!(got == large);
    let end_point = client.stream().server_end_point();
    let met = world.echo.met.lock();
    let info = met[0].1.as_ref().unwrap();
    assert!(
        end_point.is_some() && end_point.as_deref() == info.end_point.as_deref(),
        "one channel, two ends"
    );
    assert_eq!(info.sni.as_deref(), Some("db.test"));
    assert_eq!(info.alpn.as_deref(), Some(b"echo/1".as_slice()));
    assert!(info.certificate.is_none());
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    let cases = [
        // with a certificate of ours, with none, with a stranger's
        (ClientAuth::Required, [true, false, false]),
        (ClientAuth::Optional, [true, true, false]),
        (ClientAuth::None, [true, true, true]),
    ];
    for (client_auth, expected) in cases {
        let world = World::shared();
        let mut tls = pki.server("db.test");
        (tls.client_ca, tls.client_auth) = (Some(pki.ca()), Some(client_auth));
        let address = world.listen_tcp(|listener| listener.tls = Some(tls));
        let stranger = ClientTls { ca: Some(pki.ca()), ..strangers.client_with_certificate() };
        let clients = [pki.client_with_certificate(), pki.client(), stranger];
        for (client, served) in clients.iter().zip(expected) {
            assert_eq!(is_served(&address, client).await, served, "{client_auth:?}: {client:?}");
        }
        let met = world.echo.met.lock();
        let certificate = met[0].1.as_ref().unwrap().certificate.as_ref();
        match client_auth {
            ClientAuth::None => assert!(certificate.is_none()),
            ClientAuth::Required | ClientAuth::Optional => {
                let certificate = certificate.unwrap();
                assert_eq!(certificate.names, ["client.test", "spiffe://test/client"]);
                assert_eq!(certificate.common_name.as_deref(), Some("rcgen self signed cert"));
            }
        }
    }
}

#[tokio::test]
async fn a_servers_certificate_is_checked_as_configured() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    let world = World::shared();
    let address = world.listen_tcp(|listener| listener.tls = Some(pki.server("db.test")));
    let cases = [
        // right, wrong name, unknown authority
        (Verify::Full, [true, false, false]),
        (Verify::Ca, [true, true, false]),
        (Verify::None, [true, true, true]),
    ];
    for (verify, expected) in cases {
        let right = ClientTls { verify, ..pki.client() };
        let wrong_name = ClientTls { server_name: Some("other.test".to_owned()), ..right.clone() };
        let unknown_authority = ClientTls { ca: Some(strangers.ca()), ..right.clone() };
        for (client, served) in [right, wrong_name, unknown_authority].iter().zip(expected) {
            assert_eq!(dial(&address, client).await.is_ok(), served, "{client:?}");
        }
    }
}

#[tokio::test]
async fn a_reload_takes_new_certificates_and_leaves_old_connections_alone() {
    let pki = Pki::new();
    let folder = tempdir().unwrap();
    let world = World::shared();
    let mut listener = config::Listener::new(Address::Unix(folder.path().join("tls")));
    listener.tls = Some(pki.server("db.test"));
    let address = world.listen(&[listener.clone()]).remove(0);
    let mut old = dial(&address, &pki.client()).await.unwrap();
    ping(&mut old).await;

    // The same files with other content, and the same configuration.
    pki.issue("server", "new.test");
    world.listen(&[listener.clone()]);
    let new = ClientTls { server_name: Some("new.test".to_owned()), ..pki.client() };
    ping(&mut dial(&address, &new).await.unwrap()).await;
    assert!(dial(&address, &pki.client()).await.is_err());
    ping(&mut old).await;

    // A broken file changes nothing.
    fs::write(pki.path("server.pem"), "no certificate").unwrap();
    let errors = world.listeners.prepare(&[listener]).err().unwrap();
    assert!(errors[0].to_string().contains("server.pem: no certificate in this file"), "{}", errors[0]);
    ping(&mut dial(&address, &new).await.unwrap()).await;
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_at_the_start() {
    let pki = Pki::new();
    let mut tls = pki.server("db.test");
    tls.key = pki.issue("other", "other.test").1;
    let mut listener = tcp();
    listener.tls = Some(tls);
    let errors = World::shared().listeners.prepare(&[listener]).err().unwrap();
    assert!(errors[0].to_string().contains("server.pem"), "{}", errors[0]);
}

/// Answers "S" to the request for TLS, as PostgreSQL does, and echoes within.
struct Upgrading(Arc<Echo>);

impl SharedService for Upgrading {
    async fn serve(self: Arc<Self>, mut conn: Downstream) {
        let mut buf = BytesMut::new();
        conn.stream.fill(&mut buf).await.unwrap();
        let request = buf.split_to(3);
        assert!(conn.offers_tls() && request == "TLS");
        conn.stream.send(&mut &b"S"[..]).await.unwrap();
        if let Ok(conn) = conn.start_tls(&buf).await {
            assert!(!conn.offers_tls());
            self.0.echo(conn).await;
        }
    }
}

async fn upgraded(pki: &Pki, request: &str) -> Option<()> {
    let echo = Arc::<Echo>::default();
    let service = Service::shared(Arc::new(Upgrading(Arc::clone(&echo))))
        .tls_start(TlsStart::ByProtocol)
        .alpn(&[b"echo/1"]);
    let world = World::of(service, echo, 0);
    let address = world.listen_tcp(|listener| listener.tls = Some(pki.server("db.test")));
    let mut stream = connect(&address, None, PATIENCE).await.unwrap();
    stream.send(&mut request.as_bytes()).await.unwrap();
    let mut buf = BytesMut::new();
    stream.fill(&mut buf).await.unwrap();
    assert_eq!(buf, "S");
    let connector = Connector::new(&pki.client(), &[b"echo/1"]).unwrap();
    let mut client = ScriptedPeer::new(connector.connect("db.test", stream).await.ok()?);
    ping(&mut client).await;
    Some(())
}

#[tokio::test]
async fn tls_may_start_when_the_protocol_says_so() {
    let pki = Pki::new();
    assert!(upgraded(&pki, "TLS").await.is_some());
}

/// CVE-2021-23222: what came in the clear before the handshake must not be taken for what came within.
#[tokio::test]
async fn bytes_slipped_in_before_the_handshake_end_the_connection() {
    let pki = Pki::new();
    assert!(upgraded(&pki, "TLSslipped in").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_is_not_waited_for_long() {
    let pki = Pki::new();
    let world = World::shared();
    let address = world.listen_tcp(|listener| listener.tls = Some(pki.server("db.test")));
    let before = tokio::time::Instant::now();
    let mut silent = client(&address).await;
    silent.expect_end().await;
    assert_eq!(before.elapsed().as_secs(), 10);
    assert_eq!(world.listeners.status()[0].failed, 1);
}

#[test]
fn errors_name_the_file() {
    let missing = Path::new("/nowhere/ca.pem");
    let tls = ClientTls { ca: Some(CertificateFile(missing.to_owned())), ..ClientTls::default() };
    let error = Connector::new(&tls, &[]).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/ca.pem: "), "{error}");
}
