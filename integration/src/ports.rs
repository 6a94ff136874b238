//! Loopback ports that stay ours while a server is down.

use std::fmt;
use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one.
const FIRST: u16 = 14_000;
const COUNT: u16 = 18_000;

/// Where the next search in this process begins; only a hint that spares failed attempts.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback port reserved for as long as this lives, across all test processes of the machine.
///
/// The reservation is a lock on a file named after the port, so a server may be killed and come back on
/// the same port without another test taking it meanwhile.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port nobody listens on.
    ///
    /// # Errors
    /// When the lock folder cannot be written or every port of the range is taken.
    pub fn reserve() -> Result<Self> {
        let folder = std::env::temp_dir().join("groove-ports");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let spread = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + spread.wrapping_add(step) % COUNT;
            let lock = File::create(folder.join(number.to_string()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            let port = Self { number, _lock: lock };
            if port.is_free() {
                return Ok(port);
            }
        }
        bail!("no free loopback port between {FIRST} and {}", FIRST + COUNT)
    }

    /// Whether nobody listens there. The socket that finds out is bound and does not listen: a process that is started in
    /// this very moment has it, too, until it is another program, and would keep the port from whoever it is for.
    fn is_free(&self) -> bool {
        let bound = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .and_then(|socket| {
                sockopt::set_socket_reuseaddr(&socket, true)?;
                net::bind(&socket, &self.address())
            });
        bound.is_ok()
    }

    /// The number alone.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// 127.0.0.1 with this port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}
