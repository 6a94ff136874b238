//! What outlives the command and the proxy: how far a migration is, and where databases have moved to.
//!
//! Both are values of a [`Store`] in the folder that the configuration names: whole or not at all, with a checksum, and
//! changed only by who has seen what was there before. A command that is at work is *present* there, so that there is one.

use std::path::Path;

use bytes::Bytes;
use groove_common::store::{Entry, Expect, Files, Presence, Put, Revision, Store};

use super::fault::{Fault, Outcome, refused};
use super::policy::phase::{Journal, VERSION};
use super::policy::route::{Route, Routes};

const ROUTES: &str = "route/";
const JOURNALS: &str = "migration/";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    files: Files,
}

/// A journal, and the right to write the next one over it.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: Folder,
    pub(crate) journal: Journal,
    revision: Revision,
}

/// There is one command for a database at a time.
#[derive(Debug)]
pub(crate) struct Presently {
    _presence: Box<dyn Presence>,
}

impl Folder {
    /// The folder, which is made if it is not there.
    pub(crate) fn open(path: &Path) -> Outcome<Folder> {
        Ok(Folder { files: Files::open(path)? })
    }

    /// The right to be the command that moves a database.
    pub(crate) async fn be_present(&self, database: &str) -> Outcome<Presently> {
        let process = std::process::id().to_string();
        let presence = self.files.present(&name("command", database), Bytes::from(process)).await?;
        match presence {
            Some(presence) => Ok(Presently { _presence: presence }),
            None => refused("another command moves this database at this moment"),
        }
    }

    /// How far the migration of a database is, if there is one.
    pub(crate) async fn journal(&self, database: &str) -> Outcome<Option<Kept>> {
        let Some(entry) = self.files.get(&name("migration", database)).await? else { return Ok(None) };
        let journal = read(database, &entry)?;
        Ok(Some(Kept { folder: self.clone(), journal, revision: entry.revision }))
    }

    /// Begins one.
    pub(crate) async fn begin(&self, journal: Journal) -> Outcome<Kept> {
        let put =
            self.files.put(&name("migration", &journal.database), written(&journal)?, Expect::Absent).await?;
        match put {
            Put::Done(revision) => Ok(Kept { folder: self.clone(), journal, revision }),
            Put::Conflict => Err(Fault::Overtaken),
        }
    }

    /// Where databases have moved to. It waits for the disk.
    pub(crate) fn routes(&self) -> Outcome<Routes> {
        let mut routes = Routes::default();
        for (name, entry) in self.files.list_now(ROUTES)? {
            let database = decoded(name.strip_prefix(ROUTES).unwrap_or_default());
            let route: Route = serde_json::from_slice(&entry.value).map_err(|error| Fault::Journal {
                database: database.clone(),
                reason: format!("where it has moved to: {error}"),
            })?;
            routes.0.insert(database, route);
        }
        // A migration that is under way knows better.
        for (name, entry) in self.files.list_now(JOURNALS)? {
            let journal = read(&decoded(name.strip_prefix(JOURNALS).unwrap_or_default()), &entry)?;
            let (source, target, serving) =
                (journal.source.clone(), journal.target.clone(), journal.serving());
            for name in journal.names {
                let (source, target) = (source.clone(), target.clone());
                routes.0.insert(name, Route { source, target, serving });
            }
        }
        Ok(routes)
    }

    /// Keeps where a database has moved to, or forgets it.
    pub(crate) async fn set_route(&self, database: &str, route: Option<&Route>) -> Outcome<()> {
        let name = name("route", database);
        match route {
            Some(route) => {
                let value = serde_json::to_vec(route).map_err(|error| Fault::Journal {
                    database: database.to_owned(),
                    reason: error.to_string(),
                })?;
                self.files.put(&name, Bytes::from(value), Expect::Anything).await?;
            }
            None => {
                self.files.remove(&name, Expect::Anything).await?;
            }
        }
        Ok(())
    }
}

impl Kept {
    /// Changes it, unless somebody else has changed it meanwhile.
    pub(crate) async fn change(&mut self, change: impl FnOnce(&mut Journal)) -> Outcome<()> {
        let mut journal = self.journal.clone();
        change(&mut journal);
        let name = name("migration", &journal.database);
        let put = self.folder.files.put(&name, written(&journal)?, Expect::Revision(self.revision)).await?;
        match put {
            Put::Done(revision) => {
                (self.journal, self.revision) = (journal, revision);
                Ok(())
            }
            Put::Conflict => Err(Fault::Overtaken),
        }
    }

    /// The migration is no more.
    pub(crate) async fn remove(self) -> Outcome<()> {
        let name = name("migration", &self.journal.database);
        match self.folder.files.remove(&name, Expect::Revision(self.revision)).await? {
            Put::Done(_) => Ok(()),
            Put::Conflict => Err(Fault::Overtaken),
        }
    }
}

fn read(database: &str, entry: &Entry) -> Outcome<Journal> {
    let broken = |reason: String| Fault::Journal { database: database.to_owned(), reason };
    let journal: Journal = serde_json::from_slice(&entry.value).map_err(|error| broken(error.to_string()))?;
    match journal.version == VERSION {
        true => Ok(journal),
        false => Err(broken(format!("it is of form {}, and this program knows {VERSION}", journal.version))),
    }
}

fn written(journal: &Journal) -> Outcome<Bytes> {
    let written = serde_json::to_vec_pretty(journal);
    let broken = |error: serde_json::Error| Fault::Journal {
        database: journal.database.clone(),
        reason: error.to_string(),
    };
    written.map(Bytes::from).map_err(broken)
}

/// A name for the store, which takes few characters.
fn name(kind: &str, database: &str) -> String {
    let mut name = format!("{kind}/");
    for byte in database.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            other => name.push_str(&format!(":{other:02x}")),
        }
    }
    name
}

/// The database that a part of a name stands for.
fn decoded(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte =
            after.get(..2).filter(|_| *first == b':').and_then(|digits| std::str::from_utf8(digits).ok());
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_database_has_a_name() {
        for database in ["shop", "my shop.2", "é/:41", ".."] {
            let name = name("route", database);
            assert_eq!(decoded(name.strip_prefix(ROUTES).unwrap()), database, "{name}");
        }
    }
}
