//! A connection between programs that ask and a server that follows a script.

use std::task::Context;

use futures_util::FutureExt;
use groove_common::config::{self, Endpoints};
use groove_common::discovery::fresh_dice;
use groove_common::telemetry::Registry;
use groove_common::testing::ScriptedPeer;
use tokio::net::UnixListener;
use tokio::runtime::Handle;

use super::*;
use crate::program::{Link, Told};
use crate::upstream::probe::NoopProber;
use crate::wire::meta::{self, Op, Request, Status};

const STATS: &str = "STAT pid 7\r\nSTAT uptime 10\r\nSTAT time 1000\r\nSTAT version 1.6.18\r\nEND\r\n";
const RESTARTED: &str = "STAT pid 8\r\nSTAT uptime 1\r\nSTAT time 1000\r\nSTAT version 1.6.30\r\nEND\r\n";

/// A server in the test's hands, and one connection to it.
struct Scene {
    listener: UnixListener,
    connection: Rc<Connection>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memcached");
        let listener = UnixListener::bind(&path).unwrap();
        let endpoint = format!("unix:{}", path.display()).parse::<config::Endpoint>().unwrap();
        let health = config::Health { probe: None, ..Default::default() };
        let cluster = Cluster::start(
            "main",
            &Endpoints::Static(vec![endpoint]),
            &health,
            Arc::new(NoopProber::new(None)),
            &Handle::current(),
        )
        .unwrap();
        let endpoint = Arc::clone(&cluster.snapshot().members[0].endpoint);
        let settings = Settings {
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            tls: None,
            limits: Limits::default(),
        };
        let metrics = UpstreamMetrics::new(&Registry::new(1), "main");
        let connection = Connection::spawn(cluster, endpoint, Arc::new(settings), &metrics, fresh_dice());
        Self { listener, connection, _folder: folder }
    }

    async fn accept(&self, about: &str) -> ScriptedPeer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut server = ScriptedPeer::new(stream);
        server.expect("mn\r\nstats\r\n").await;
        server.send(format!("MN\r\n{about}")).await;
        server
    }

    async fn ask(&self, key: &str, pinned: Option<Link>) -> Result<Told, Failure> {
        let op = Op::Get(meta::Get::default());
        let request = Request { key: key.as_bytes(), is_coded: false, op };
        self.connection.put(&request, pinned, false, Instant::now())?.answered().await
    }

    async fn is_up(&self) {
        while self.connection.link().is_none() {
            tokio::task::yield_now().await;
        }
    }

    async fn is_down(&self) {
        while self.connection.link().is_some() {
            tokio::task::yield_now().await;
        }
    }

    fn identity(&self) -> Poll<Result<Identity, Failure>> {
        self.connection.poll_up(false, Waker::noop()).map_ok(|(_, identity)| identity)
    }
}

/// Runs a test where connections may spawn their tasks.
fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let options = tokio::runtime::LocalOptions::default();
    builder.enable_all().start_paused(true).build_local(options).unwrap().block_on(test);
}

#[test]
fn a_pinned_request_goes_out_on_its_connection_only() {
    run(async {
        let scene = Scene::new();
        let (told, mut server) = tokio::join!(scene.ask("a", None), async {
            let mut server = scene.accept(STATS).await;
            server.expect("mg a\r\n").await;
            server.send("HD\r\n").await;
            server
        });
        let told = told.unwrap();
        assert_eq!((told.reply.status, Some(told.link)), (Status::Done, scene.connection.link()));
        let (pinned, ()) = tokio::join!(scene.ask("b", Some(told.link)), async {
            server.expect("mg b\r\n").await;
            server.send("EN\r\n").await;
        });
        assert_eq!(pinned.unwrap().link, told.link);
        drop(server);
        // Before its end is noticed, the request would be lost with it.
        scene.is_down().await;
        // Another TCP connection: what was pinned to the first is not sent.
        let (again, mut server) = tokio::join!(scene.ask("c", None), async {
            let mut server = scene.accept(STATS).await;
            server.expect("mg c\r\n").await;
            server.send("HD\r\n").await;
            server
        });
        assert_ne!(again.unwrap().link, told.link);
        assert_eq!(scene.ask("d", Some(told.link)).await.unwrap_err(), Failure::Lost);
        let (last, ()) = tokio::join!(scene.ask("e", None), async {
            server.expect("mg e\r\n").await;
            server.send("HD\r\n").await;
        });
        last.unwrap();
    });
}

#[test]
fn the_reply_for_a_program_that_is_gone_is_thrown_away() {
    run(async {
        let scene = Scene::new();
        {
            let mut gone = Box::pin(scene.ask("gone", None));
            assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let (told, _) = tokio::join!(scene.ask("a", None), async {
            let mut server = scene.accept(STATS).await;
            server.expect("mg gone\r\nmg a\r\n").await;
            server.send("EN\r\nHD\r\n").await;
            server
        });
        assert_eq!(told.unwrap().reply.status, Status::Done);
    });
}

#[test]
fn a_program_is_told_when_its_server_does_not_answer() {
    run(async {
        let scene = Scene::new();
        let begun = tokio::time::Instant::now();
        let (told, _server) = tokio::join!(scene.ask("a", None), scene.accept(STATS));
        assert_eq!(told.unwrap_err(), Failure::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(2));
        // And at once while the server is away.
        assert_eq!(scene.ask("a", None).now_or_never().unwrap().unwrap_err(), Failure::Down);
    });
}

#[test]
fn a_server_that_hangs_up_on_an_idle_connection_has_not_failed() {
    run(async {
        let scene = Scene::new();
        for _ in 0..3 {
            let (told, server) = tokio::join!(scene.ask("a", None), async {
                let mut server = scene.accept(STATS).await;
                server.expect("mg a\r\n").await;
                server.send("HD\r\n").await;
                server
            });
            told.unwrap();
            drop(server);
            scene.is_down().await;
        }
        let (successes, failures) = scene.connection.endpoint.totals();
        assert_eq!((successes, failures), (3, 0));
    });
}

#[test]
fn who_answers_is_known_before_a_token_is_sent() {
    run(async {
        let scene = Scene::new();
        assert!(scene.identity().is_pending());
        let server = scene.accept(STATS).await;
        scene.is_up().await;
        let Poll::Ready(Ok(first)) = scene.identity() else { panic!("it is up") };
        assert!(!first.takes_new_cas);
        drop(server);
        scene.is_down().await;
        // Restarted: older tokens match no more.
        assert!(scene.identity().is_pending());
        let _server = scene.accept(RESTARTED).await;
        scene.is_up().await;
        let Poll::Ready(Ok(second)) = scene.identity() else { panic!("it is up") };
        assert!(second.takes_new_cas);
        assert_eq!(second.epoch.cas(first.epoch.token(5)), u64::MAX);
        assert_eq!(second.epoch.cas(second.epoch.token(5)), 5);
    });
}

#[test]
fn a_server_that_is_no_memcached_is_not_used() {
    run(async {
        let scene = Scene::new();
        let (told, ()) = tokio::join!(scene.ask("a", None), async {
            let (stream, _) = scene.listener.accept().await.unwrap();
            let mut server = ScriptedPeer::new(stream);
            server.send("MN\r\nHTTP/1.1 400 Bad Request\r\n").await;
        });
        assert_eq!(told.unwrap_err(), Failure::Down);
    });
}

#[test]
fn an_answer_for_another_key_reaches_nobody() {
    run(async {
        let scene = Scene::new();
        let op = Op::Get(meta::Get { wants: meta::Wants::ITEM, ..Default::default() });
        let request = Request { key: b"mine", is_coded: false, op };
        let (told, _server) = tokio::join!(
            async { scene.connection.put(&request, None, false, Instant::now())?.answered().await },
            async {
                let mut server = scene.accept(STATS).await;
                server.expect("mg mine k f v\r\n").await;
                server.send("VA 1 kyours f0\r\nx\r\n").await;
                server
            }
        );
        assert_eq!(told.unwrap_err(), Failure::Nonsense);
    });
}

#[test]
fn a_redial_in_progress_makes_nobody_wait() {
    run(async {
        let scene = Scene::new();
        let (told, ()) = tokio::join!(scene.ask("a", None), async {
            drop(scene.listener.accept().await.unwrap());
        });
        assert_eq!(told.unwrap_err(), Failure::Down);
        // It is dialled again, and lets the connection wait for its greeting.
        let (_stream, _) = scene.listener.accept().await.unwrap();
        assert_eq!(scene.ask("a", None).now_or_never().unwrap().unwrap_err(), Failure::Down);
    });
}

#[test]
fn a_fence_is_passed_when_all_before_it_have_been_answered() {
    run(async {
        let scene = Scene::new();
        assert!(scene.connection.fence().is_none());
        let (told, (), ()) = tokio::join!(
            scene.ask("a", None),
            async {
                let fence = scene.connection.fence().unwrap();
                let mut passed = Box::pin(fence.answered());
                assert!(passed.as_mut().now_or_never().is_none());
                passed.await.unwrap();
            },
            async {
                let mut server = scene.accept(STATS).await;
                server.expect("mg a\r\nmn\r\n").await;
                server.send("HD\r\nMN\r\n").await;
            }
        );
        told.unwrap();
        assert!(scene.connection.fence().is_none());
    });
}
