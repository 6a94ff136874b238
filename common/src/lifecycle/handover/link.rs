//! The unix socket between the two: messages, and sockets that go with them (SCM_RIGHTS, unix(7)).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::BytesMut;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::message::{Message, MessageError, decode, encode};

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Sockets of one read: a message has one, and the kernel ends a read with the bytes that a socket came with.
const READ_SOCKETS: usize = 4;
/// Sockets whose messages are still to come.
const SOCKETS_MAX: usize = 64;

/// Why the link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket, or the process at its other end, is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other process says what makes no sense.
    #[error("the other process sent {0}")]
    Message(#[from] MessageError),
    /// It sends sockets without a word, or words without their sockets.
    #[error("the other process sent sockets that do not go with its messages")]
    Sockets,
}

/// One half.
#[derive(Debug, Clone)]
pub(super) struct Sender(Arc<UnixStream>);

/// The other half.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: Arc<UnixStream>,
    input: BytesMut,
    sockets: VecDeque<OwnedFd>,
}

/// Both halves of a link.
pub(super) fn halves(stream: UnixStream) -> (Sender, Receiver) {
    let stream = Arc::new(stream);
    let receiver = Receiver { stream: Arc::clone(&stream), input: BytesMut::new(), sockets: VecDeque::new() };
    (Sender(stream), receiver)
}

impl Sender {
    /// Sends a message. Dropped on the way, it leaves half of it behind.
    pub(super) async fn send(
        &self,
        message: &Message,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), LinkError> {
        let bytes = encode(message, socket.is_some())?;
        let mut left = bytes.as_slice();
        let mut socket = socket.as_slice();
        while !left.is_empty() {
            let sent = self.0.async_io(Interest::WRITABLE, || send_some(&self.0, left, socket)).await?;
            left = left.get(sent..).unwrap_or_default();
            // It went with the first byte.
            socket = &[];
        }
        Ok(())
    }
}

impl Receiver {
    /// The next message and the socket that goes with it. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<(Message, Option<OwnedFd>), LinkError> {
        loop {
            match decode(&mut self.input)? {
                Some((message, false)) => return Ok((message, None)),
                Some((message, true)) => {
                    let socket = self.sockets.pop_front().ok_or(LinkError::Sockets)?;
                    return Ok((message, Some(socket)));
                }
                None => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> Result<(), LinkError> {
        let Self { stream, input, sockets } = self;
        // No more than what has come is held, whatever a message says of its length.
        let mut bytes = vec![0; READ_BYTES];
        let filled =
            stream.async_io(Interest::READABLE, || receive_some(stream, &mut bytes, sockets)).await?;
        if filled == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        input.extend_from_slice(bytes.get(..filled).unwrap_or_default());
        if sockets.len() > SOCKETS_MAX { Err(LinkError::Sockets) } else { Ok(()) }
    }
}

fn send_some(stream: &UnixStream, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("no room for a socket"));
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive_some(stream: &UnixStream, bytes: &mut [u8], sockets: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(READ_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // Out of descriptors: a socket is lost, and with it whose it was.
        return Err(io::Error::other("a socket that was sent could not be taken (open files?)"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
impl Sender {
    /// Sends whatever bytes.
    pub(super) async fn say(&self, bytes: &[u8]) {
        assert_eq!(
            self.0.async_io(Interest::WRITABLE, || send_some(&self.0, bytes, &[])).await.unwrap(),
            bytes.len()
        );
    }
}
