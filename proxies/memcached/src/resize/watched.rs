//! Whether servers answer, asked once a second beside everything else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use groove_common::ids::Address;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::line::Line;
use crate::upstream::connection::Settings;

/// Between two questions whether a server answers.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Since when servers do not answer.
#[derive(Default)]
pub(super) struct Watched {
    silent: Arc<Mutex<HashMap<Address, Instant>>>,
    tasks: HashMap<Address, AbortOnDropHandle<()>>,
}

impl Watched {
    /// From now on these.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<&Address>, settings: &Arc<Settings>) {
        self.tasks.retain(|address, _| wanted.contains(address));
        self.silent.lock().retain(|address, _| wanted.contains(address));
        for &address in wanted {
            self.tasks.entry(address.clone()).or_insert_with(|| {
                let watch = watch_server(address.clone(), Arc::clone(settings), Arc::clone(&self.silent));
                AbortOnDropHandle::new(tokio::spawn(watch))
            });
        }
    }

    /// Those that have not answered for so long.
    pub(super) fn away(&self, after: Duration) -> BTreeSet<Address> {
        let silent = self.silent.lock();
        silent
            .iter()
            .filter(|(_, since)| since.elapsed() >= after)
            .map(|(address, _)| address.clone())
            .collect()
    }
}

async fn watch_server(
    address: Address,
    settings: Arc<Settings>,
    silent: Arc<Mutex<HashMap<Address, Instant>>>,
) {
    loop {
        let asked = Instant::now();
        let answered = async { Line::open(&address, &settings).await?.greet(&settings).await };
        match answered.await {
            Ok(()) => {
                silent.lock().remove(&address);
            }
            Err(_) => {
                silent.lock().entry(address.clone()).or_insert(asked);
            }
        }
        sleep(ASK_EVERY).await;
    }
}
