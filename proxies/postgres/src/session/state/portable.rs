//! What a session is between two exchanges, for another process to go on with.
//!
//! Only a session without a server connection can go: nothing is owed, nothing of it is on any server. A transaction that
//! was begun without a server goes along.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::by_sql::Written;
use super::deferred::Deferred;
use super::{Bounds, Machine, Mode, Unnamed};
use crate::error::Error;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
use crate::wire::backend::Status;

/// A session's machine at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portable {
    mode: Mode,
    settings: Settings,
    /// Those it began with, if they are others.
    startup: Option<Settings>,
    names: BTreeMap<Vec<u8>, Prepared>,
    unnamed: Option<Vec<u8>>,
    sets_by_parameter: bool,
    by_sql: BTreeMap<Box<str>, Vec<u8>>,
    deferred: Option<Begun>,
    voids: u32,
    /// Bytes of an unwanted message that are still to come.
    client_left: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Prepared {
    content: Vec<u8>,
    proven: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Begun {
    By(Vec<u8>),
    Failed,
}

/// Why a session cannot go on here.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// Its pool gives connections back at other times.
    #[error("its pool has another mode here")]
    Mode,
    /// It has more than a session may have here.
    #[error("{0}")]
    Bounds(#[from] Error),
    /// What is said of it cannot be.
    #[error("its state makes no sense")]
    Absurd,
}

impl Machine {
    /// What is to be known of this session, if it is at rest and has nothing on a server.
    pub fn portable(&self) -> Option<Portable> {
        // Whoever adds a field decides here what becomes of it.
        let Machine {
            mode,
            bounds: _,
            statements: _,
            names,
            unnamed: Unnamed { content, is_here, sets_by_parameter, uses_names: _ },
            settings,
            startup,
            by_sql,
            traces,
            pinned,
            deferred,
            listening,
            notes: _,
            expected,
            status,
            batch_open,
            skipping,
            copying_in,
            client_left,
            server_left,
            server_passes: _,
            voids,
            setup_failed,
            has_altered,
            refusing,
            terminated,
            told_fatal,
            // Of an exchange that is over.
            fence: _,
            queries: _,
            suspect: _,
        } = self;
        let in_use = *batch_open || *skipping || *copying_in || *refusing || *server_left > 0 || *has_altered;
        // What it hears comes to this process.
        let in_use = in_use || listening.is_some();
        let over = *terminated || *told_fatal || *setup_failed;
        if !expected.is_empty() || in_use || over || *is_here || !pinned.is_empty() || !traces.is_none() {
            return None;
        }
        let deferred = match deferred {
            None => None,
            Some(Deferred::Begun(text)) => Some(Begun::By(text.to_vec())),
            Some(Deferred::Failed) => Some(Begun::Failed),
        };
        if *status != status_of(deferred.as_ref()) || *mode == Mode::Session {
            return None;
        }
        let names = names.iter().map(|(name, statement)| {
            let content = statement.content.to_vec();
            (name.to_vec(), Prepared { content, proven: statement.is_proven() })
        });
        Some(Portable {
            mode: *mode,
            settings: Settings::clone(settings),
            startup: (startup != settings).then(|| Settings::clone(startup)),
            names: names.collect(),
            unnamed: content.as_ref().map(|content| content.to_vec()),
            sets_by_parameter: *sets_by_parameter,
            by_sql: by_sql.as_ref().map(|own| own.texts().collect()).unwrap_or_default(),
            deferred,
            voids: *voids,
            client_left: *client_left as u64,
        })
    }

    /// A machine that goes on where another was.
    pub fn resumed(
        portable: Portable,
        mode: Mode,
        bounds: Bounds,
        statements: Arc<Statements>,
    ) -> Result<Machine, PortableError> {
        let Portable { settings, startup, names, by_sql, deferred, .. } = portable;
        if portable.mode != mode || mode == Mode::Session {
            return Err(PortableError::Mode);
        }
        let settings = Arc::new(settings);
        let mut machine = Machine::new(mode, bounds, statements, Arc::clone(&settings));
        if let Some(startup) = startup {
            machine.startup = Arc::new(startup);
        }
        for (name, Prepared { content, proven }) in names {
            if name.is_empty() {
                return Err(PortableError::Absurd);
            }
            machine.names.check_room(bounds.statements, &name, &content)?;
            let statement = machine.statements.intern(&content);
            if proven {
                statement.prove();
            }
            machine.names.insert(name.into(), statement, machine.statements.tick());
        }
        for (name, text) in by_sql {
            if !machine.has_room_for(&text) {
                return Err(PortableError::Absurd);
            }
            machine.by_sql.get_or_insert_default().insert(name, Arc::new(Written::again(text)));
        }
        machine.unnamed = Unnamed {
            content: portable.unnamed.map(Bytes::from),
            is_here: false,
            sets_by_parameter: portable.sets_by_parameter,
            uses_names: false,
        };
        machine.status = status_of(deferred.as_ref());
        machine.deferred = match deferred {
            Some(_) if mode != Mode::Transaction => return Err(PortableError::Absurd),
            Some(Begun::By(text)) => Some(Deferred::Begun(text.into())),
            Some(Begun::Failed) => Some(Deferred::Failed),
            None => None,
        };
        machine.voids = portable.voids;
        // A message's length is an i32.
        let client_left =
            i32::try_from(portable.client_left).ok().and_then(|left| usize::try_from(left).ok());
        machine.client_left = client_left.ok_or(PortableError::Absurd)?;
        machine.check_invariants();
        Ok(machine)
    }
}

fn status_of(deferred: Option<&Begun>) -> Status {
    match deferred {
        None => Status::Idle,
        Some(Begun::By(_)) => Status::Transaction,
        Some(Begun::Failed) => Status::Failed,
    }
}
