//! The unix socket at which the next process asks, and the conversation up to its being ready.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{info, warn};

use super::link::{LinkError, Receiver, Sender, halves};
use super::message::{Message, PROTOCOL};
use super::{Program, Socket};

/// A new process has this long from its first word to being ready.
const START_MAX: Duration = Duration::from_secs(120);
/// For owner alone.
const MODE: u32 = 0o600;
/// Processes that may stand in line.
const BACKLOG: i32 = 8;
/// After a failed accept (descriptors run out) the next attempt waits.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the next process asks. The file goes with it, unless another has taken its place.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// Where it lies until it is published.
    draft: Option<PathBuf>,
    inode: (u64, u64),
}

/// A process that is ready to go on in our place.
#[derive(Debug)]
pub struct Taker {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// Its process id.
    pub pid: u32,
    /// It takes sessions of our version.
    pub takes_sessions: bool,
}

impl Door {
    /// Listens beside `path`: nobody finds it before it is [published](Door::publish).
    pub fn prepare(path: &Path) -> io::Result<Self> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        // Left by a process of the same number that was killed.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The file is made with these permissions, so that there is no moment with more.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(MODE))?;
        socket.bind(&SockAddr::unix(&draft)?)?;
        let inode = inode(&draft)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        Ok(Self { listener, path: path.to_owned(), draft: Some(draft), inode })
    }

    /// Takes the place at `path`, in one step.
    pub fn publish(&mut self) -> io::Result<()> {
        if let Some(draft) = &self.draft {
            fs::rename(draft, &self.path)?;
            self.draft = None;
        }
        Ok(())
    }

    /// The next process that is ready to go on; those that are not are logged, and change nothing.
    pub async fn taker(&self, program: Program, sockets: impl Fn() -> io::Result<Vec<Socket>>) -> Taker {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a new process asked to take over, and could not be heard");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let asked = timeout(START_MAX, negotiate(stream, program, &sockets)).await;
            match asked.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
                Ok(taker) => return taker,
                Err(error) => warn!(%error, "a new process did not get to take over; this one goes on"),
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let path = self.draft.as_ref().unwrap_or(&self.path);
        if inode(path).is_ok_and(|inode| inode == self.inode) {
            // Gone already or not allowed: nothing else can be done at this point.
            fs::remove_file(path).unwrap_or_default();
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Why a new process does not take over.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Everything up to its being ready.
async fn negotiate(
    stream: UnixStream,
    program: Program,
    sockets: impl Fn() -> io::Result<Vec<Socket>>,
) -> Result<Taker, Refusal> {
    check_peer(&stream)?;
    let (sender, mut receiver) = halves(stream);
    let (hello, _) = receiver.receive().await?;
    let takes_sessions = match welcome(&hello, program) {
        Ok(takes_sessions) => takes_sessions,
        Err(why) => {
            sender.send(&Message::Refused { why: why.clone() }, None).await?;
            return Err(Refusal::Refused(why));
        }
    };
    info!("a new process starts to take over");
    let (version, pid) = (program.version.to_owned(), std::process::id());
    sender.send(&Message::Welcome { version, pid }, None).await?;
    for Socket { listener, is_admin } in sockets()? {
        let address = listener.address.to_string();
        sender.send(&Message::Socket { address, is_admin }, Some(listener.socket.as_fd())).await?;
    }
    sender.send(&Message::SocketsEnd, None).await?;
    match receiver.receive().await? {
        (Message::Ready { pid }, None) => Ok(Taker { sender, receiver, pid, takes_sessions }),
        (_, _) => Err(Refusal::Refused("it said something else than that it is ready".to_owned())),
    }
}

/// Whether sessions go over, too; or why nothing does.
fn welcome(hello: &Message, program: Program) -> Result<bool, String> {
    let Message::Hello { protocol, program: name, sessions, .. } = hello else {
        return Err("it does not say who it is".to_owned());
    };
    if *protocol != PROTOCOL {
        return Err(format!("it hands over by protocol {protocol}, this process by {PROTOCOL}"));
    }
    if name != program.name {
        return Err(format!("it is {name}, this process is {}", program.name));
    }
    Ok(program.sessions.is_some() && *sessions == program.sessions)
}

/// Who is at the other end has to be the same user, or root.
pub(super) fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), geteuid().as_raw());
    if theirs == ours || theirs == 0 {
        return Ok(());
    }
    let what = format!("the process at the other end belongs to user {theirs}, this one to {ours}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}
