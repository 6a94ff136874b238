//! Making a listening socket, and cleaning up after a unix one.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode as RawMode;
use rustix::net::sockopt;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::{self, Mode};
use crate::ids::Address;

/// A bound and listening socket, known to the runtime.
pub(super) struct Bound {
    pub(super) socket: AsyncFd<Arc<Socket>>,
    pub(super) address: Address,
    file: Option<SocketFile>,
}

impl Bound {
    /// A listening socket that another process has bound to `listener`'s address and hands over. A unix socket's file
    /// stays that process's until [`Bound::own_file`].
    pub(super) fn adopt(socket: OwnedFd, listener: &config::Listener) -> io::Result<Self> {
        let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let socket = Socket::from(socket);
        if !sockopt::socket_acceptconn(&socket)? {
            return Err(refused("what was handed over does not listen"));
        }
        let bound = socket.local_addr()?;
        let address = match (&listener.address, bound.as_socket()) {
            (Address::Tcp { .. }, Some(bound)) => Address::tcp(bound.ip().to_string(), bound.port()),
            (Address::Unix(path), None) if bound.as_pathname() == Some(path) => listener.address.clone(),
            (Address::Tcp { .. } | Address::Unix(_), _) => {
                return Err(refused("what was handed over listens elsewhere"));
            }
        };
        listening(socket, address, None, listener)
    }

    /// Has the calling thread's runtime watch the socket, in place of the one that did.
    pub(super) fn register_here(&mut self) -> io::Result<()> {
        self.socket = watched(Arc::clone(self.socket.get_ref()))?;
        Ok(())
    }

    /// From here on a unix socket's file goes with this socket.
    pub(super) fn own_file(&mut self) -> io::Result<()> {
        if let (Address::Unix(path), None) = (&self.address, &self.file) {
            self.file = Some(SocketFile::at(path)?);
        }
        Ok(())
    }

    /// Another process has the socket now: its file stays.
    pub(super) fn give_up_file(&mut self) {
        if let Some(file) = self.file.take() {
            file.leave();
        }
    }
}

/// Binds and listens, as [`bind`], where an address overlaps with one of ours that is about to leave (another of
/// the same port). Both listen until it does, so that no client finds neither.
pub(super) fn bind_beside(listener: &config::Listener, leaving: &[Arc<Socket>]) -> io::Result<Bound> {
    let sharing = |socket: &Socket, shares| socket.set_reuse_port(shares);
    let bound = leaving
        .iter()
        .try_for_each(|socket| sharing(socket, true))
        .and_then(|()| bind_as(listener, &|socket| sharing(socket, true)));
    // Only for this moment: later on nobody is to share the port by chance.
    let ours = bound.as_ref().ok().map(|bound| bound.socket.get_ref());
    for socket in leaving.iter().chain(ours) {
        sharing(socket, false)?;
    }
    bound
}

/// Binds and listens. To be called within a runtime.
pub(super) fn bind(listener: &config::Listener) -> io::Result<Bound> {
    bind_as(listener, &|_| Ok(()))
}

fn bind_as(listener: &config::Listener, prepare: &dyn Fn(&Socket) -> io::Result<()>) -> io::Result<Bound> {
    let (socket, address, file) = match &listener.address {
        Address::Tcp { host, port } => {
            let (socket, address) = bind_tcp(host, *port, prepare)?;
            (socket, Address::tcp(address.ip().to_string(), address.port()), None)
        }
        Address::Unix(path) => {
            let (socket, file) = bind_unix(path, listener.mode)?;
            // Now without the umask.
            set_mode(&listener.address, listener.mode)?;
            (socket, listener.address.clone(), Some(file))
        }
    };
    listening(socket, address, file, listener)
}

fn listening(
    socket: Socket,
    address: Address,
    file: Option<SocketFile>,
    listener: &config::Listener,
) -> io::Result<Bound> {
    socket.set_nonblocking(true)?;
    socket.listen(backlog(listener.backlog))?;
    Ok(Bound { socket: watched(Arc::new(socket))?, address, file })
}

#[allow(
    deprecated,
    reason = "its successor is unsafe; what that asks for holds: the socket owns its descriptor"
)]
fn watched(socket: Arc<Socket>) -> io::Result<AsyncFd<Arc<Socket>>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// As listen(2) takes it.
pub(super) fn backlog(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

fn bind_tcp(
    host: &str,
    port: u16,
    prepare: &dyn Fn(&Socket) -> io::Result<()>,
) -> io::Result<(Socket, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for address in (host, port).to_socket_addrs()? {
        match bind_tcp_to(address, prepare) {
            Ok(socket) => {
                let bound = socket.local_addr()?.as_socket().unwrap_or(address);
                return Ok((socket, bound));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Accepted sockets inherit what is set here.
fn bind_tcp_to(address: SocketAddr, prepare: &dyn Fn(&Socket) -> io::Result<()>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&super::keepalive())?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: Option<Mode>) -> io::Result<(Socket, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Some(Mode(mode)) = mode {
        // The file is made with these permissions, so that there is no moment with more.
        rustix::fs::fchmod(&socket, RawMode::from_raw_mode(mode))?;
    }
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    Ok((socket, file))
}

/// Gives a unix socket's file its permissions.
pub(super) fn set_mode(address: &Address, mode: Option<Mode>) -> io::Result<()> {
    match (address, mode) {
        (Address::Unix(path), Some(Mode(mode))) => fs::set_permissions(path, Permissions::from_mode(mode)),
        (Address::Unix(_), None) | (Address::Tcp { .. }, _) => Ok(()),
    }
}

/// Removes a socket file that nobody answers on: a proxy that was killed leaves one.
fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {what}", path.display()));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(taken("a file that is not a socket is here"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(taken("another process listens here")),
    }
}

/// A unix socket's file; removed with the listener, unless another has taken its place.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }

    /// The file stays where it is.
    fn leave(mut self) {
        // No file has it.
        self.path = PathBuf::new();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // Gone already or not allowed: nothing else can be done at this point.
            fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
