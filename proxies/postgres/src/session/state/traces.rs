//! What a session leaves on its server connection, and what becomes of it: settings go with the session, the rest
//! keeps the connection until the server says that it is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;

use super::{Backend, Machine, Mode};
use crate::session::survey::{Found, Survey};
use crate::sql::{Kinds, Reading};
use crate::wire::backend::put_parameter_status;

/// What an application may call its own settings, at most so many at once; more are found by nobody.
const CUSTOM_MAX: usize = 64;

/// What the server connection at hand may bear of the session, as far as the server was not asked.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// What may be there.
    pub(super) leaves: Kinds,
    /// What may be gone.
    pub(super) releases: Kinds,
    /// Few sessions ever have any.
    names: Option<Box<Names>>,
    resets_all: bool,
    /// The server has said what is set.
    is_surveyed: bool,
    /// Something failed, or there was a transaction block: what was reset may not be.
    pub(super) troubled: bool,
}

#[derive(Debug, Default)]
struct Names {
    /// Settings with a dot in their name that may have been set.
    custom: BTreeSet<Box<str>>,
    /// Settings of the startup that were reset.
    resets: Vec<Box<str>>,
}

impl Traces {
    /// Nothing is to be known, as at the end of an exchange.
    pub(super) fn is_none(&self) -> bool {
        let Traces { leaves, releases, names, resets_all, is_surveyed: _, troubled } = self;
        leaves.is_empty() && releases.is_empty() && names.is_none() && !resets_all && !troubled
    }

    fn add_custom(&mut self, name: Box<str>) {
        let custom = &mut self.names.get_or_insert_default().custom;
        if custom.len() < CUSTOM_MAX {
            custom.insert(name);
        }
    }

    fn has_resets(&self) -> bool {
        self.resets_all || self.resets_some()
    }

    fn resets_some(&self) -> bool {
        self.names.as_ref().is_some_and(|names| !names.resets.is_empty())
    }
}

impl Machine {
    /// Notes what a text may do, once it is on its way.
    pub(super) fn note(&mut self, reading: &Reading, backend: &Backend) {
        let traces = &mut self.traces;
        traces.leaves |= reading.leaves;
        traces.releases |= reading.releases;
        for name in &reading.settings {
            // What a server reports needs no asking.
            if !backend.settings.is_reported(name) {
                traces.leaves |= Kinds::SETTINGS;
            }
            if name.contains('.') {
                traces.add_custom(name.clone());
            }
        }
        traces.resets_all |= reading.resets_all;
        self.note_unlistens(reading);
        let traces = &mut self.traces;
        for name in reading.resets.iter().filter(|name| self.startup.has(name)) {
            let resets = &mut traces.names.get_or_insert_default().resets;
            if !resets.contains(name) {
                resets.push(name.clone());
            }
        }
    }

    /// Notes the parameters of a statement that sets what one of them names.
    pub(super) fn note_parameters<'a>(&mut self, parameters: impl Iterator<Item = &'a [u8]>) {
        for name in parameters.filter_map(custom_name) {
            self.traces.add_custom(name);
        }
    }

    /// Whether the session keeps its server connection beyond a transaction.
    pub fn keeps_server(&self) -> bool {
        self.mode == Mode::Session || !self.pinned.is_empty()
    }

    /// What keeps it there, beside the mode.
    pub fn pinned(&self) -> Kinds {
        self.pinned
    }

    /// What may be on the server connection of this session.
    pub fn dirt(&self) -> Kinds {
        self.pinned | self.traces.leaves
    }

    /// What to ask the server, now that it is at rest, before its connection goes on.
    pub fn survey(&self) -> Option<Survey> {
        let kinds = self.doubtful();
        if kinds.is_empty() {
            return None;
        }
        let mut custom = self.traces.names.as_ref().map(|names| names.custom.clone()).unwrap_or_default();
        custom.extend(self.settings.custom().map(Box::from));
        Some(Survey { kinds, custom: custom.into_iter().collect() })
    }

    fn doubtful(&self) -> Kinds {
        let Traces { leaves, releases, .. } = &self.traces;
        // After RESET ALL all is reset, unless it was rolled back, or something was set after it.
        let is_doubtful =
            self.traces.troubled || leaves.contains(Kinds::SETTINGS) || self.traces.resets_some();
        let doubts = if self.traces.has_resets() && is_doubtful { Kinds::SETTINGS } else { Kinds::empty() };
        let kinds = match self.mode {
            Mode::Session => doubts,
            Mode::Transaction | Mode::Statement if self.pinned.is_empty() => *leaves | doubts,
            // Who keeps the connection keeps what is on it.
            Mode::Transaction | Mode::Statement => {
                if self.pinned.intersects(*releases) {
                    *leaves | self.pinned | doubts
                } else {
                    // But for what it hears, which the pool may hear for it.
                    doubts | ((*leaves & Kinds::LISTENS) - self.pinned)
                }
            }
        };
        kinds - Kinds::LIBRARIES
    }

    /// Whether something has to be done about what the session left, although it keeps its connection.
    pub(super) fn has_business(&self) -> bool {
        self.traces.has_resets() || !self.doubtful().is_empty() || self.has_left()
    }

    /// Takes the answer to a survey of `kinds`; without one, everything may be there, and the session keeps its
    /// connection.
    pub fn surveyed(&mut self, kinds: Kinds, found: Option<&Found>, backend: &mut Backend) {
        // As any simple query does.
        self.unnamed.is_here = false;
        let Some(found) = found else {
            self.pinned |= kinds | self.traces.leaves;
            self.traces.releases = Kinds::empty();
            return;
        };
        let prepared = found.prepared.iter().any(|name| !backend.by_sql.contains_key(name));
        let mut there = found.others;
        there.set(Kinds::PREPARED, prepared);
        there |= self.traces.leaves & Kinds::LIBRARIES;
        self.pinned = (self.pinned - kinds) | there;
        self.traces.leaves -= kinds;
        self.traces.releases = Kinds::empty();
        if kinds.contains(Kinds::SETTINGS) {
            self.traces.is_surveyed = true;
            let own_role = backend.initial.get("session_authorization").map(Box::from);
            let asked = found.settings.iter().filter(|(name, value)| match &**name {
                "role" => &**value != "none",
                "session_authorization" => Some(value) != own_role.as_ref(),
                "exit_on_error" => false,
                _ => true,
            });
            let mut settings = (*backend.settings).clone();
            settings.set_asked(asked.map(|(name, value)| (&**name, &**value)));
            if settings != *backend.settings {
                backend.settings = Arc::new(settings);
            }
        }
    }

    /// The end of an exchange: the session's settings are the connection's, but for those that were reset, which
    /// are again as at its startup. Whatever of that the client has not heard it is told.
    pub fn end(&mut self, backend: &mut Backend, to_client: &mut BytesMut) {
        if self.traces.leaves.contains(Kinds::LIBRARIES) {
            self.pinned |= Kinds::LIBRARIES;
        }
        if self.traces.has_resets() {
            self.restore(backend, to_client);
        } else if !Arc::ptr_eq(&self.settings, &backend.settings) {
            self.settings = Arc::clone(&backend.settings);
        }
        if self.pinned.is_empty() {
            self.traces = Traces::default();
            self.unnamed.is_here = false;
        }
        self.traces.releases = Kinds::empty();
        (self.traces.troubled, self.traces.is_surveyed) = (false, false);
        self.fence = None;
    }

    fn restore(&mut self, backend: &mut Backend, to_client: &mut BytesMut) {
        let names =
            self.traces.names.as_mut().map(|names| std::mem::take(&mut names.resets)).unwrap_or_default();
        let all = std::mem::take(&mut self.traces.resets_all);
        if all && !self.traces.is_surveyed {
            Arc::make_mut(&mut backend.settings).reset_all();
        }
        let mut settings = (*backend.settings).clone();
        // What has another value than the server's own was set again, or its RESET rolled back.
        let is_reset = |name: &str, value: &str| backend.initial.get(name) == Some(value);
        settings.restore(&self.startup, |name| all || names.iter().any(|reset| **reset == *name), is_reset);
        for (name, value) in settings.reported_unlike(&backend.settings) {
            put_parameter_status(to_client, name, value);
        }
        self.settings = Arc::new(settings);
    }
}

/// A text that may be the name of an application's own setting.
fn custom_name(text: &[u8]) -> Option<Box<str>> {
    let is_name = |part: &[u8]| {
        part.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
    };
    let is_custom = text.len() <= 63 && text.contains(&b'.') && text.split(|byte| *byte == b'.').all(is_name);
    let text = std::str::from_utf8(text).ok().filter(|_| is_custom)?;
    Some(text.to_ascii_lowercase().into())
}
