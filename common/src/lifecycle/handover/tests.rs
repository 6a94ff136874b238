use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use bytes::BytesMut;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::link::{LinkError, halves};
use super::message::{Message, MessageError, PROTOCOL, decode, encode};
use super::*;
use crate::ids::Address;
use crate::net::{Inherited, Peer};
use crate::telemetry::Registry;

const PROGRAM: Program = Program { name: "groove-test", version: "1", sessions: Some(1) };

fn client_message(state: Vec<u8>) -> Message {
    let peer = Some("[::1]:7".parse().unwrap());
    Message::Client { id: 7, address: "127.0.0.1:1".to_owned(), peer, state }
}

#[test]
fn a_message_is_read_once_it_is_whole_and_nothing_else_is() {
    let whole = encode(&client_message(vec![3; 300]), true).unwrap();
    for length in 0..whole.len() {
        assert_eq!(decode(&mut BytesMut::from(&whole[..length])).unwrap(), None, "{length} bytes");
    }
    let mut two = BytesMut::from([whole.as_slice(), &whole].concat().as_slice());
    for _ in 0..2 {
        assert_eq!(decode(&mut two).unwrap(), Some((client_message(vec![3; 300]), true)));
    }
    assert!(two.is_empty());

    let mut long = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f, 0][..]);
    assert_eq!(decode(&mut long), Err(MessageError::TooLong(0x7fff_ffff)));
    for nonsense in [&[1, 0, 0, 0, 0, 99][..], &[0, 0, 0, 0, 0], &[2, 0, 0, 0, 0, 4, 4], &[1, 0, 0, 0, 2, 4]]
    {
        assert_eq!(decode(&mut BytesMut::from(nonsense)), Err(MessageError::Unknown), "{nonsense:?}");
    }
    // A length within that is longer than what is there allocates nothing.
    let mut lying = BytesMut::from(&[8, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..]);
    assert_eq!(decode(&mut lying), Err(MessageError::Unknown));
    assert!(encode(&client_message(vec![0; STATE_BYTES_MAX]), true).is_ok());
    assert!(encode(&client_message(vec![0; STATE_BYTES_MAX + (64 << 10)]), true).is_err());
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

#[tokio::test]
async fn sockets_go_with_their_messages_however_long_those_are() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ((sender, other_half), (_, mut receiver)) = (halves(ours), halves(theirs));
    let sending = tokio::spawn(async move {
        let mut ends = Vec::new();
        for length in [0, 10, 1 << 20, 3] {
            let (mut far, near) = pair();
            far.write_all(&[u8::try_from(length % 256).unwrap()]).unwrap();
            sender.send(&Message::Taken { id: 1 }, None).await.unwrap();
            sender.send(&client_message(vec![1; length]), Some(near.as_fd())).await.unwrap();
            ends.push(far);
        }
        ends
    });
    for length in [0, 10, 1 << 20, 3] {
        assert!(matches!(receiver.receive().await.unwrap(), (Message::Taken { id: 1 }, None)));
        let (message, socket) = receiver.receive().await.unwrap();
        assert_eq!(message, client_message(vec![1; length]));
        let mut byte = [0];
        TcpStream::from(socket.unwrap()).read_exact(&mut byte).unwrap();
        assert_eq!(usize::from(byte[0]), length % 256);
    }
    sending.await.unwrap();
    drop(other_half);
    assert!(matches!(receiver.receive().await, Err(LinkError::Io(_))), "the end");
}

/// A process with one listener, at whose door others may ask.
struct Old {
    folder: TempDir,
    door: Door,
    listener: TcpListener,
}

impl Old {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut door = Door::prepare(&folder.path().join("door")).unwrap();
        door.publish().unwrap();
        Self { folder, door, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("door")
    }

    async fn taker(&self) -> Taker {
        let sockets = || {
            let socket = self.listener.as_fd().try_clone_to_owned()?;
            let listener = Inherited { address: Address::tcp("127.0.0.1", 0), socket };
            Ok(vec![Socket { listener, is_admin: false }])
        };
        self.door.taker(PROGRAM, sockets).await
    }

    /// A process that has asked and is ready.
    async fn followed(&self) -> (Taker, Inheritance) {
        let path = self.path();
        let ask = async {
            let inheritance = take_over(&path, PROGRAM).await.unwrap().unwrap();
            inheritance.ready().await.unwrap();
            inheritance
        };
        tokio::join!(self.taker(), ask)
    }
}

#[tokio::test]
async fn where_nobody_is_there_is_nothing_to_take_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door");
    assert!(take_over(&path, PROGRAM).await.unwrap().is_none());
    // Left behind by one that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(take_over(&path, PROGRAM).await.unwrap().is_none());
}

#[tokio::test]
async fn the_file_is_its_owners_and_goes_with_the_last_to_publish_it() {
    use std::os::unix::fs::PermissionsExt;
    let old = Old::new();
    let mode = std::fs::metadata(old.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut next = Door::prepare(&old.path()).unwrap();
    assert_eq!(std::fs::read_dir(old.folder.path()).unwrap().count(), 2);
    next.publish().unwrap();
    let path = old.path();
    drop(old.door);
    assert!(path.exists(), "it is the next one's");
    drop(next);
    assert_eq!(std::fs::read_dir(old.folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn others_are_refused_and_the_right_one_gets_the_sockets() {
    let old = Old::new();
    let path = old.path();
    let ask = async {
        let other = Program { name: "groove-other", ..PROGRAM };
        let refused = take_over(&path, other).await.unwrap_err().to_string();
        assert!(refused.contains("groove-other"), "{refused}");

        let (sender, mut receiver) = halves(UnixStream::connect(&path).await.unwrap());
        let (program, version) = (PROGRAM.name.to_owned(), "9".to_owned());
        let hello = Message::Hello { protocol: PROTOCOL + 1, program, version, sessions: Some(1) };
        sender.send(&hello, None).await.unwrap();
        assert!(matches!(receiver.receive().await, Ok((Message::Refused { .. }, None))));

        // Its sessions are of another version: it takes the listeners alone.
        let newer = Program { sessions: Some(2), ..PROGRAM };
        let inheritance = take_over(&path, newer).await.unwrap().unwrap();
        inheritance.ready().await.unwrap();
        inheritance
    };
    let (taker, inheritance) = tokio::join!(old.taker(), ask);
    assert!(!taker.takes_sessions);
    assert_eq!((taker.pid, inheritance.pid), (std::process::id(), std::process::id()));
    let [Socket { listener, is_admin: false }] = &inheritance.sockets[..] else { panic!("one socket") };
    let shared = TcpListener::from(listener.socket.try_clone().unwrap());
    assert_eq!(shared.local_addr().unwrap(), old.listener.local_addr().unwrap());
}

fn a_client() -> (TcpStream, Client) {
    let (far, near) = pair();
    let socket = OwnedFd::from(near);
    (
        far,
        Client { address: Address::tcp("127.0.0.1", 0), peer: Peer::Unix, socket, state: b"state".to_vec() },
    )
}

fn hand_over() -> HandOver {
    HandOver::new(&Registry::new(0))
}

#[tokio::test]
async fn clients_go_over_are_kept_and_words_come_back() {
    let old = Old::new();
    let (taker, inheritance) = old.followed().await;
    let (giving, taking) = (hand_over(), hand_over());
    let (_far, client) = a_client();
    assert!(matches!(giving.give(client).await, Given::Kept(_)), "nobody leads yet");

    let (heard, mut hears) = mpsc::unbounded_channel();
    let (begun, has_begun) = oneshot::channel();
    let lead = tokio::spawn({
        let giving = giving.clone();
        async move { giving.lead(taker, begun, move |word| heard.send(word).unwrap()).await }
    });
    has_begun.await.unwrap();
    let words = taking.follow();
    let (served, mut serves) = mpsc::unbounded_channel();
    let take = tokio::spawn(async move {
        let mut seen = 0;
        let prepare = move |taken: Taken| {
            seen += 1;
            assert_eq!((taken.state.as_slice(), taken.peer), (&b"state"[..], Peer::Unix));
            if seen % 2 == 1 { Ok(taken.socket) } else { Err("enough".to_owned()) }
        };
        inheritance.take(prepare, move |socket| served.send(socket).unwrap(), words).await
    });
    for round in 0..4 {
        let (mut far, client) = a_client();
        let given = giving.give(client).await;
        if round % 2 == 0 {
            assert_eq!(given, Given::Taken);
            TcpStream::from(serves.recv().await.unwrap()).write_all(b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
        } else {
            assert_eq!(given, Given::Kept("enough".to_owned()));
        }
    }
    assert_eq!(giving.given(), (2, 3));
    assert!(taking.tell(b"cancel".to_vec()).await);
    assert_eq!(hears.recv().await.unwrap(), b"cancel");

    take.abort();
    assert!(matches!(lead.await.unwrap(), LinkError::Io(_)));
    let (_far, client) = a_client();
    assert!(matches!(giving.give(client).await, Given::Kept(_)));
}

/// What a client comes to that is under way when the new process says this, and no more.
async fn given_when(last_words: Option<&[u8]>) -> Given {
    let old = Old::new();
    let (taker, inheritance) = old.followed().await;
    let giving = hand_over();
    let (begun, has_begun) = oneshot::channel();
    let lead = giving.lead(taker, begun, |_| {});
    let (_far, client) = a_client();
    let give = async {
        has_begun.await.unwrap();
        giving.give(client).await
    };
    let mut inheritance = Some(inheritance);
    let end = async {
        inheritance.as_mut().unwrap().await_client().await;
        if let Some(words) = last_words {
            inheritance.as_ref().unwrap().say(words).await;
        }
        drop(inheritance.take());
        std::future::pending::<()>().await
    };
    tokio::select! {
        (_, given) = async { tokio::join!(lead, give) } => given,
        () = end => unreachable!(),
    }
}

#[tokio::test]
async fn who_has_not_been_taken_when_the_new_process_ends_is_still_ours() {
    assert!(matches!(given_when(None).await, Given::Kept(_)));
    let taken = encode(&Message::Taken { id: 1 }, false).unwrap();
    assert!(matches!(given_when(Some(&taken[..3])).await, Given::Kept(_)), "half a word is none");
    assert_eq!(given_when(Some(&taken)).await, Given::Taken, "said before the end");
    assert_eq!(
        given_when(Some(&[1, 0, 0, 0, 0, 99])).await,
        Given::Taken,
        "whoever has it, it is not for two"
    );
}
