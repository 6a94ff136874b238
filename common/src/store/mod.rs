//! What sidecars know together: small values under names, compare-and-put, and who is present.
//!
//! A [`Store`] holds documents of some kilobytes, changed a few times in a minute: the servers of a cluster,
//! the phase of a resize, who has acknowledged it. No request of a client ever waits for it.
//!
//! ```text
//!                 ┌─ Files: a folder on one machine, locks of the kernel (files.rs)
//!   dyn Store ────┤
//!                 └─ another store (etcd, ...) is one more file here
//! ```
//!
//! What every implementation promises:
//!
//! - A value has a [`Revision`], which grows with each change of any value and never comes back: who puts with
//!   [`Expect::Revision`] knows that nobody was in between. (A presence counts its own updates.)
//! - A put is whole or not at all, whatever happens to the process in the middle of it.
//! - A [`Presence`] is a value that goes with its process: killed, it is gone for the others at once; only
//!   stopped, it stays. Where that cannot be had (a lease over a network), [`Presence::lost`] tells.
//! - A [`Watch`] only says "look again", and says so at least once after the last change. Who looks reads the
//!   whole prefix: nothing is lost when a connection breaks and the watch begins anew.

mod files;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use files::Files;

#[cfg(test)]
mod tests;

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 200;

/// The longest value, in bytes.
pub const VALUE_LEN_MAX: usize = 1 << 20;

/// When a value was put: larger is later, over all names of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was put.
    pub value: Bytes,
    /// When.
    pub revision: Revision,
}

/// What a put takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// There is no such name.
    Absent,
    /// The value is still this one.
    Revision(Revision),
}

/// How a put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there, and this is its revision.
    Done(Revision),
    /// Somebody was faster: look again.
    Conflict,
}

/// Why a store does not answer. All but the first may pass by themselves.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A name or value that no store takes: a mistake of the caller.
    #[error("`{0}` cannot be stored: {1}")]
    Unfit(String, &'static str),
    /// What is there was not written by a store, or was damaged.
    #[error("{place} is damaged ({reason})")]
    Damaged {
        /// The file or key.
        place: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The place cannot be reached, read or written.
    #[error("{place}: {reason}")]
    Away {
        /// The file or server.
        place: String,
        /// What the system said.
        reason: String,
    },
    /// Another process keeps the store to itself for too long.
    #[error("{0} is held by another process that does not let go (is one stopped?)")]
    Held(String),
}

/// A place for what sidecars share. Names are texts of `a-z A-Z 0-9 . _ : -`, in folders by `/`.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// What it is, for the log and the admin API.
    fn describe(&self) -> String;

    /// The value of a name.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// Every name that begins with `prefix`, in order; of presences only those whose process is there.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>>;

    /// Puts a value, if what is expected is so.
    fn put<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        expect: Expect,
    ) -> BoxFuture<'a, Result<Put, StoreError>>;

    /// Takes a name away, if what is expected is so. [`Put::Done`] also if there was none and nothing was
    /// expected.
    fn remove<'a>(&'a self, name: &'a str, expect: Expect) -> BoxFuture<'a, Result<Put, StoreError>>;

    /// Puts a value that lasts as long as what is returned does. `None`: another one has that name.
    fn present<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Presence>>, StoreError>>;

    /// Tells of changes below `prefix`, from now on.
    fn watch<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>>;
}

/// A value that goes with its process, or when this is dropped.
pub trait Presence: Send + Sync + fmt::Debug + 'static {
    /// Puts another value in its place.
    fn update(&self, value: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Resolves when the others may believe that it is gone although the process lives: whoever acts by it
    /// must stop.
    fn lost(&self) -> BoxFuture<'_, ()>;
}

/// See [`Store::watch`].
pub trait Watch: Send + fmt::Debug + 'static {
    /// Resolves when something may have changed since the last time. Cancel-safe.
    fn changed(&mut self) -> BoxFuture<'_, ()>;
}

/// A store as it is shared.
pub type SharedStore = Arc<dyn Store>;

/// Whether a name may be used.
fn check_name(name: &str) -> Result<(), StoreError> {
    let unfit = |why| Err(StoreError::Unfit(name.to_owned(), why));
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return unfit("a name has 1 to 200 bytes");
    }
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
    };
    if !name.split('/').all(is_part) {
        return unfit("a name's parts are letters, digits, `.`, `_`, `:` and `-`, and begin with no dot");
    }
    Ok(())
}

fn check_value(name: &str, value: &[u8]) -> Result<(), StoreError> {
    match value.len() <= VALUE_LEN_MAX {
        true => Ok(()),
        false => Err(StoreError::Unfit(name.to_owned(), "a value has at most 1 MiB")),
    }
}
