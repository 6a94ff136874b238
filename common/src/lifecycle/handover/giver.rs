//! The old process's side, once the new one is ready; and what a proxy has of a hand-over.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::debug;

use super::door::Taker;
use super::link::{LinkError, Receiver, Sender};
use super::message::{Message, STATE_BYTES_MAX};
use crate::ids::Address;
use crate::net::Peer;
use crate::telemetry::{Counter, Registry};

/// Clients on their way at once; the others wait in their sessions.
const UNDER_WAY_MAX: usize = 64;
/// Words for the old process that may wait.
const WORDS_MAX: usize = 64;

/// A client to be handed over.
#[derive(Debug)]
pub struct Client {
    /// The listener it came in by, as configured.
    pub address: Address,
    /// The client.
    pub peer: Peer,
    /// Another descriptor of its socket.
    pub socket: OwnedFd,
    /// What its session is.
    pub state: Vec<u8>,
}

/// What became of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The new process serves it: not a byte may be read from it or written to it here any more.
    Taken,
    /// It is still ours.
    Kept(String),
}

/// A hand-over, in both directions: sessions go to the next process, words to the one before. Clones share it.
#[derive(Debug, Clone)]
pub struct HandOver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    next: Mutex<Option<mpsc::Sender<Request>>>,
    before: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    counts: Counts,
}

/// How many sessions.
#[derive(Debug)]
struct Counts {
    given: Counter,
    kept: Counter,
    taken: Counter,
    refused: Counter,
}

struct Request {
    client: Client,
    answer: oneshot::Sender<Given>,
}

/// Clients on their way; `None` when nothing more is heard of any.
type UnderWay = Mutex<Option<HashMap<u64, oneshot::Sender<Given>>>>;

impl HandOver {
    /// Nothing is handed over yet.
    pub fn new(registry: &Registry) -> Self {
        let counter = |outcome| {
            let help = "Sessions of a hand-over: given to the next process or kept from it, taken from the one before or refused";
            registry.counter("groove_handover_sessions", help, &[("outcome", outcome)])
        };
        let counts = Counts {
            given: counter("given"),
            kept: counter("kept"),
            taken: counter("taken"),
            refused: counter("refused"),
        };
        Self(Arc::new(Shared { next: Mutex::default(), before: Mutex::default(), counts }))
    }

    /// Gives a client to the next process. Once begun it must be seen to its end: dropped, nobody knows whose it is.
    pub async fn give(&self, client: Client) -> Given {
        let next = self.0.next.lock().clone();
        let given = match next {
            None => Given::Kept("no process takes sessions".to_owned()),
            Some(_) if client.state.len() > STATE_BYTES_MAX => {
                Given::Kept("its state is too long".to_owned())
            }
            Some(next) => ask(&next, client).await,
        };
        match &given {
            Given::Taken => self.0.counts.given.inc(),
            Given::Kept(_) => self.0.counts.kept.inc(),
        }
        given
    }

    /// Says something to the process before this one; false if there is none that listens.
    pub async fn tell(&self, word: Vec<u8>) -> bool {
        let before = self.0.before.lock().clone();
        match before {
            Some(before) => before.send(word).await.is_ok(),
            None => false,
        }
    }

    /// Sessions that were given, and those that the next process did not take.
    pub fn given(&self) -> (u64, u64) {
        (self.0.counts.given.get(), self.0.counts.kept.get())
    }

    /// Sessions that were taken, and those that were refused.
    pub fn taken(&self) -> (u64, u64) {
        (self.0.counts.taken.get(), self.0.counts.refused.get())
    }

    /// Counts one that the process before this one wanted to give.
    pub fn count_taken(&self, is_taken: bool) {
        let counts = &self.0.counts;
        if is_taken { &counts.taken } else { &counts.refused }.inc();
    }

    /// From here on words go to the process before this one.
    pub fn follow(&self) -> mpsc::Receiver<Vec<u8>> {
        let (words, heard) = mpsc::channel(WORDS_MAX);
        *self.0.before.lock() = Some(words);
        heard
    }

    /// From here on sessions go to `taker`; what it says goes to `heard`. Returns when it is gone.
    pub async fn lead(
        &self,
        taker: Taker,
        begun: oneshot::Sender<()>,
        heard: impl FnMut(Vec<u8>),
    ) -> LinkError {
        let Taker { sender, receiver, takes_sessions, .. } = taker;
        let (requests, asked) = mpsc::channel(UNDER_WAY_MAX);
        if takes_sessions {
            *self.0.next.lock() = Some(requests);
        }
        begun.send(()).unwrap_or_default();
        let (under_way, room) = (UnderWay::new(Some(HashMap::new())), Semaphore::new(UNDER_WAY_MAX));
        // Apart from each other: who writes to one that writes itself must still read. What it has said is heard to its
        // end, even if nothing can be said to it any more.
        let error = tokio::select! {
            error = listen(receiver, &under_way, &room, heard) => error,
            never = speak_on(sender, asked, &under_way, &room) => match never {},
        };
        *self.0.next.lock() = None;
        let left = under_way.lock().take().unwrap_or_default();
        for (_, answer) in left {
            // Of one that is not understood it cannot be said which it took: better no server than two.
            let given = match &error {
                LinkError::Io(error) => Given::Kept(format!("the new process is gone: {error}")),
                LinkError::Message(_) | LinkError::Sockets => Given::Taken,
            };
            answer.send(given).unwrap_or_default();
        }
        error
    }
}

async fn ask(next: &mpsc::Sender<Request>, client: Client) -> Given {
    let (answer, answered) = oneshot::channel();
    let gone = || Given::Kept("the new process is gone".to_owned());
    if next.send(Request { client, answer }).await.is_err() {
        return gone();
    }
    answered.await.unwrap_or_else(|_| gone())
}

/// Sends clients as long as that is possible.
async fn speak_on(
    sender: Sender,
    asked: mpsc::Receiver<Request>,
    under_way: &UnderWay,
    room: &Semaphore,
) -> Infallible {
    if let Err(error) = speak(sender, asked, under_way, room).await {
        debug!(%error, "no more sessions can be given");
    }
    std::future::pending().await
}

async fn speak(
    sender: Sender,
    mut asked: mpsc::Receiver<Request>,
    under_way: &UnderWay,
    room: &Semaphore,
) -> Result<(), LinkError> {
    let mut id = 0;
    while let Some(Request { client, answer }) = asked.recv().await {
        // Never closed.
        if let Ok(permit) = room.acquire().await {
            permit.forget();
        }
        id += 1;
        if let Some(under_way) = &mut *under_way.lock() {
            under_way.insert(id, answer);
        }
        let Client { address, peer, socket, state } = client;
        let peer = match peer {
            Peer::Ip(address) => Some(address),
            Peer::Unix => None,
        };
        let message = Message::Client { id, address: address.to_string(), peer, state };
        if let Err(error) = sender.send(&message, Some(socket.as_fd())).await {
            // It did not get there whole: it is still ours.
            let answer = under_way.lock().as_mut().and_then(|under_way| under_way.remove(&id));
            answer
                .into_iter()
                .for_each(|answer| answer.send(Given::Kept(error.to_string())).unwrap_or_default());
            return Err(error);
        }
    }
    Ok(())
}

/// Hears what became of them.
async fn listen(
    mut receiver: Receiver,
    under_way: &UnderWay,
    room: &Semaphore,
    mut heard: impl FnMut(Vec<u8>),
) -> LinkError {
    loop {
        let (id, given) = match receiver.receive().await {
            Ok((Message::Taken { id }, None)) => (id, Given::Taken),
            Ok((Message::Kept { id, why }, None)) => {
                debug!(why, "the new process does not take a session");
                (id, Given::Kept(why))
            }
            Ok((Message::Word { bytes }, None)) => {
                heard(bytes);
                continue;
            }
            Ok((_, _)) => return LinkError::Sockets,
            Err(error) => return error,
        };
        let answer = under_way.lock().as_mut().and_then(|under_way| under_way.remove(&id));
        let Some(answer) = answer else { return LinkError::Sockets };
        room.add_permits(1);
        answer.send(given).unwrap_or_default();
    }
}
