//! The new process's side.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::door::check_peer;
use super::link::{LinkError, Receiver, Sender, halves};
use super::message::{Message, PROTOCOL};
use super::{Program, Socket};
use crate::ids::Address;
use crate::net::{Inherited, Peer};

/// For each thing that the old process has to say before it waits for us.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Listeners that one process may have.
const SOCKETS_MAX: usize = 1024;

/// Why nothing can be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The old process is not to be spoken with.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// It does not answer, or is not ours.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It will not.
    #[error("it refuses: {0}")]
    Refused(String),
    /// It speaks another language.
    #[error("it said what makes no sense here")]
    Unexpected,
}

/// What the old process has given before it hands anything over.
#[derive(Debug)]
pub struct Inheritance {
    sender: Sender,
    receiver: Receiver,
    /// Its listening sockets.
    pub sockets: Vec<Socket>,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// A client that the old process wants to hand over.
#[derive(Debug)]
pub struct Taken {
    id: u64,
    /// The listener that it came in by, as configured.
    pub address: Address,
    /// The client.
    pub peer: Peer,
    /// The client's socket.
    pub socket: OwnedFd,
    /// What its session is.
    pub state: Vec<u8>,
}

/// Asks at `path` for what the process there has; `None` if there is none.
pub async fn take_over(path: &Path, program: Program) -> Result<Option<Inheritance>, TakeOverError> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    check_peer(&stream)?;
    let (sender, mut receiver) = halves(stream);
    let Program { name, version, sessions } = program;
    let (name, version) = (name.to_owned(), version.to_owned());
    sender.send(&Message::Hello { protocol: PROTOCOL, program: name, version, sessions }, None).await?;
    let (version, pid) = match answer(&mut receiver).await? {
        (Message::Welcome { version, pid }, None) => (version, pid),
        (Message::Refused { why }, None) => return Err(TakeOverError::Refused(why)),
        (_, _) => return Err(TakeOverError::Unexpected),
    };
    let mut sockets = Vec::new();
    loop {
        match answer(&mut receiver).await? {
            (Message::Socket { address, is_admin }, Some(socket)) if sockets.len() < SOCKETS_MAX => {
                let address = address.parse().map_err(|_| TakeOverError::Unexpected)?;
                sockets.push(Socket { listener: Inherited { address, socket }, is_admin });
            }
            (Message::SocketsEnd, None) => break,
            (_, _) => return Err(TakeOverError::Unexpected),
        }
    }
    Ok(Some(Inheritance { sender, receiver, sockets, pid, version }))
}

/// Nobody listens there, or not any more.
fn is_nobody(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind())
}

async fn answer(receiver: &mut Receiver) -> Result<(Message, Option<OwnedFd>), TakeOverError> {
    let answer = timeout(ANSWER_MAX, receiver.receive()).await;
    Ok(answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
}

impl Inheritance {
    /// Tells the old process that it can go.
    pub async fn ready(&self) -> Result<(), LinkError> {
        self.sender.send(&Message::Ready { pid: std::process::id() }, None).await
    }

    /// Takes clients until the old process is gone. `prepare` makes of one what `serve` serves once the old process
    /// has been told, or says why it is not wanted. What comes through `words` is passed on. Why it ended is returned.
    pub async fn take<T>(
        mut self,
        mut prepare: impl FnMut(Taken) -> Result<T, String>,
        mut serve: impl FnMut(T),
        mut words: mpsc::Receiver<Vec<u8>>,
    ) -> LinkError {
        loop {
            let message = tokio::select! {
                message = self.receiver.receive() => message,
                Some(bytes) = words.recv() => {
                    match self.sender.send(&Message::Word { bytes }, None).await {
                        Ok(()) => continue,
                        Err(error) => return error,
                    }
                }
            };
            let taken = match message {
                Ok((Message::Client { id, address, peer, state }, Some(socket))) => {
                    let peer = peer.map_or(Peer::Unix, Peer::Ip);
                    match address.parse() {
                        Ok(address) => Taken { id, address, peer, socket, state },
                        Err(_) => return LinkError::Sockets,
                    }
                }
                Ok((_, _)) => return LinkError::Sockets,
                Err(error) => return error,
            };
            let id = taken.id;
            let (answer, prepared) = match prepare(taken) {
                Ok(prepared) => (Message::Taken { id }, Some(prepared)),
                Err(why) => (Message::Kept { id, why }, None),
            };
            // Who has not heard that it is ours serves it on.
            if let Err(error) = self.sender.send(&answer, None).await {
                return error;
            }
            prepared.into_iter().for_each(&mut serve);
        }
    }
}

#[cfg(test)]
impl Inheritance {
    /// Waits for a client and does nothing about it.
    pub(super) async fn await_client(&mut self) {
        while !matches!(self.receiver.receive().await.unwrap(), (Message::Client { .. }, Some(_))) {}
    }

    /// Says whatever bytes.
    pub(super) async fn say(&self, bytes: &[u8]) {
        self.sender.say(bytes).await;
    }
}
