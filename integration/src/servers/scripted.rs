//! A TCP server that does exactly what a test says, for what no real server would do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;

use crate::ports::Port;

/// A listener that hands each connection, with its number from 0, to a handler on a thread of its own.
///
/// When dropped it stops accepting; a handler that still runs keeps its connection until it returns.
#[derive(Debug)]
pub struct Scripted {
    port: Port,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts listening.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(handler: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind(port.address())?;
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (handler, stopped, count) = (Arc::new(handler), Arc::clone(&stop), Arc::clone(&accepted));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::AcqRel);
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || handler(number, stream));
            }
        });
        Ok(Self { port, stop, accepted, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How many connections it has accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept loop so that it sees the flag.
        let _refused = TcpStream::connect(self.port.address());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
