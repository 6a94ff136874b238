//! Restarts of apps: how many there have been, which tells whose connections are older, and whoever wants to hear of each.

use groove_common::ids::EndpointId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::broadcast;

/// Restarts that a worker may be behind. One that misses some closes idle connections when their time is over.
const BEHIND_MAX: usize = 64;

/// See the head of this file.
#[derive(Debug)]
pub struct Restarts {
    count: AtomicU32,
    told: broadcast::Sender<Restarted>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Restarted {
    /// Connections from before it have a lower number.
    pub number: u32,
    /// The app's endpoints.
    pub endpoints: Arc<[EndpointId]>,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), told: broadcast::Sender::new(BEHIND_MAX) }
    }
}

impl Restarts {
    /// How many there have been.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// One more begins. It is to be [told](Self::tell) when exchanges go by it.
    pub fn begin(&self) -> u32 {
        self.count.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Tells whoever has idle connections to these endpoints.
    pub fn tell(&self, restarted: Restarted) {
        // Workers without connections do not listen.
        drop(self.told.send(restarted));
    }

    /// Hears of those from now on.
    pub fn listen(&self) -> broadcast::Receiver<Restarted> {
        self.told.subscribe()
    }
}
