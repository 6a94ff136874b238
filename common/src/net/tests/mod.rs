//! Listeners from the outside: real sockets, a service that echoes, an event for everything that is waited for.

mod gather;
mod listeners;
mod proxy;
mod tls;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::workers::Workers;
use super::*;
use crate::config;
use crate::ids::Address;
use crate::telemetry::Registry;
use crate::testing::ScriptedPeer;

const PATIENCE: Duration = Duration::from_secs(20);

/// Echoes, and remembers whom it met.
#[derive(Debug, Default)]
struct Echo {
    met: Mutex<Vec<(Peer, Option<TlsInfo>)>>,
    workers: Mutex<BTreeSet<usize>>,
    served: AtomicUsize,
}

impl Echo {
    async fn echo(&self, mut conn: Downstream) {
        self.met.lock().push((conn.peer, conn.tls.as_deref().cloned()));
        self.served.fetch_add(1, Ordering::SeqCst);
        let mut draining = conn.drain.draining();
        let mut buf = BytesMut::new();
        loop {
            tokio::select! {
                biased;
                read = conn.stream.fill(&mut buf) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                () = &mut draining => {
                    conn.stream.send(&mut &b"bye"[..]).await.unwrap();
                    return;
                }
            }
            // What begins with this is an exchange that never ends.
            if buf.starts_with(b"hang") {
                conn.stream.send(&mut &b"begun"[..]).await.unwrap();
                std::future::pending::<()>().await;
            }
            conn.stream.send(&mut buf).await.unwrap();
        }
    }
}

impl SharedService for Echo {
    async fn serve(self: Arc<Self>, conn: Downstream) {
        self.echo(conn).await;
    }

    async fn refuse(self: Arc<Self>, mut conn: Downstream) {
        conn.stream.send(&mut &b"full"[..]).await.unwrap();
    }
}

/// The per-core flavour of the same.
struct OnCore(Arc<Echo>, WorkerId);

impl LocalService for OnCore {
    async fn serve(self: Rc<Self>, conn: Downstream) {
        self.0.workers.lock().insert(self.1.0);
        self.0.echo(conn).await;
    }
}

struct World {
    echo: Arc<Echo>,
    listeners: Listeners,
    registry: Arc<Registry>,
}

impl World {
    /// Listeners of the shared flavour on the test's own runtime: paused time holds for sessions too.
    fn shared() -> Self {
        let echo = Arc::<Echo>::default();
        Self::of(Service::shared(Arc::clone(&echo)), echo, 0)
    }

    fn per_core(workers: usize) -> Self {
        let echo = Arc::<Echo>::default();
        let theirs = Arc::clone(&echo);
        let service = Service::per_core(move |id| Rc::new(OnCore(Arc::clone(&theirs), id)));
        Self::of(service, echo, workers)
    }

    fn of(service: Service, echo: Arc<Echo>, workers: usize) -> Self {
        let (registry, runtime) = (Registry::new(workers), Handle::current());
        let listeners = Listeners::new(service, workers, runtime, Arc::clone(&registry)).unwrap();
        Self { echo, listeners, registry }
    }

    fn listen(&self, configs: &[config::Listener]) -> Vec<Address> {
        let change = self.listeners.prepare(configs).unwrap();
        self.listeners.apply(change, PATIENCE);
        self.listeners.status().into_iter().filter(|one| !one.leaving).map(|one| one.address).collect()
    }

    /// One TCP listener.
    fn listen_tcp(&self, change: impl FnOnce(&mut config::Listener)) -> Address {
        let mut listener = tcp();
        change(&mut listener);
        self.listen(&[listener]).remove(0)
    }

    async fn connections_become(&self, count: usize) {
        soon(async {
            while self.listeners.connections() != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Nobody is let in there any more.
    async fn refuses(&self, address: &Address) {
        soon(async {
            while connect(address, None, PATIENCE).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn tcp() -> config::Listener {
    config::Listener::new(Address::tcp("127.0.0.1", 0))
}

async fn client(address: &Address) -> ScriptedPeer {
    ScriptedPeer::new(connect(address, None, PATIENCE).await.unwrap())
}

/// Sends and gets it back.
async fn ping(client: &mut ScriptedPeer) {
    client.send("ping").await;
    client.expect("ping").await;
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("what is waited for did not come")
}
