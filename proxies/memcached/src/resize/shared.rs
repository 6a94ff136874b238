//! What of a cluster stands in the store, and under which names.
//!
//! | name | what | written by |
//! |---|---|---|
//! | `CLUSTER/state` | [`State`] | by compare-and-put: who drives, and who takes an operator's wish |
//! | `CLUSTER/sidecars/ID` | [`Sidecar`], as long as it is there | each its own |
//! | `CLUSTER/leader` | the ID of who drives, as long as it is there | whoever is first |
//! | `CLUSTER/progress` | [`Report`] | who drives |
//! | `CLUSTER/standby` | [`Seen`] | who drives, where there are standby servers |

use std::collections::BTreeMap;

use bytes::Bytes;
use groove_common::config::Endpoint;
use groove_common::ids::Address;
use groove_common::store::{Expect, Presence, Put, Revision, SharedStore, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::phase::State;
use super::standby::Seen;
use super::wishes::Refused;

/// How often a change is tried again that others were faster with.
const CONFLICTS_MAX: u32 = 32;

/// One cluster's part of the store.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    store: SharedStore,
    cluster: String,
}

/// A sidecar as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// The step that it has acknowledged; 0: it has just come.
    pub(super) acknowledged: u64,
    /// Its process.
    pub(super) pid: u32,
    /// Its machine.
    pub(super) host: String,
}

/// What the one who drives tells the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The step it is about.
    pub(super) step: u64,
    /// Who tells it.
    pub(super) leader: String,
    /// Why it does not go on.
    pub(super) waits_for: Option<String>,
    /// Keys moved.
    pub(super) moved: u64,
    /// Keys to move, as far as can be told.
    pub(super) total: Option<u64>,
    /// Bytes moved.
    pub(super) bytes: u64,
    /// Tries that failed.
    pub(super) failed: u64,
    /// Keys that a new server did not take.
    #[serde(default)]
    pub(super) refused: u64,
    /// Keys in the last seconds, a second.
    pub(super) keys_per_second: f64,
    /// Servers that do not answer.
    pub(super) away: Vec<Address>,
}

/// Why the store is of no use just now.
#[derive(Debug, thiserror::Error)]
pub(super) enum SharedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("what is stored for this cluster is not understood: {0} (another version?)")]
    Strange(String),
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("others were faster each time: try again")]
    Contended,
}

impl Shared {
    pub(super) fn new(store: SharedStore, cluster: &str) -> Self {
        Self { store, cluster: cluster.to_owned() }
    }

    pub(super) fn store(&self) -> &SharedStore {
        &self.store
    }

    pub(super) fn name(&self, what: &str) -> String {
        format!("{}/{what}", self.cluster)
    }

    /// The state, if there is one yet.
    pub(super) async fn state(&self) -> Result<Option<(State, Revision)>, SharedError> {
        let Some(entry) = self.store.get(&self.name("state")).await? else { return Ok(None) };
        Ok(Some((read(&entry.value)?, entry.revision)))
    }

    /// The state; made of `list` if there is none.
    pub(super) async fn state_or(&self, list: &[Endpoint]) -> Result<(State, Revision), SharedError> {
        for _ in 0..CONFLICTS_MAX {
            if let Some(known) = self.state().await? {
                return Ok(known);
            }
            self.put_state(&State::new(list.to_vec()), Expect::Absent).await?;
        }
        Err(SharedError::Contended)
    }

    pub(super) async fn put_state(&self, state: &State, expect: Expect) -> Result<Put, SharedError> {
        Ok(self.store.put(&self.name("state"), write(state)?, expect).await?)
    }

    /// Changes the state, whoever else does so too. `Ok(None)`: there was nothing to change.
    pub(super) async fn change(
        &self,
        change: impl Fn(&State) -> Result<Option<State>, Refused>,
    ) -> Result<Option<State>, SharedError> {
        for _ in 0..CONFLICTS_MAX {
            let Some((state, revision)) = self.state().await? else {
                return Err(SharedError::Strange("there is nothing".to_owned()));
            };
            let Some(state) = change(&state)? else { return Ok(None) };
            if let Put::Done(_) = self.put_state(&state, Expect::Revision(revision)).await? {
                return Ok(Some(state));
            }
        }
        Err(SharedError::Contended)
    }

    /// Who is present. To be asked after the state was read, never before: a sidecar that comes is present
    /// first and reads then.
    pub(super) async fn sidecars(&self) -> Result<BTreeMap<String, Sidecar>, SharedError> {
        let prefix = self.name("sidecars/");
        let mut sidecars = BTreeMap::new();
        for (name, entry) in self.store.list(&prefix).await? {
            let id = name.strip_prefix(&prefix).unwrap_or(&name).to_owned();
            sidecars.insert(id, read(&entry.value)?);
        }
        Ok(sidecars)
    }

    pub(super) async fn join(
        &self,
        id: &str,
        sidecar: &Sidecar,
    ) -> Result<Option<Box<dyn Presence>>, SharedError> {
        Ok(self.store.present(&self.name(&format!("sidecars/{id}")), write(sidecar)?).await?)
    }

    /// The right to drive, if nobody has it.
    pub(super) async fn lead(&self, id: &str) -> Result<Option<Box<dyn Presence>>, SharedError> {
        let name = self.name("leader");
        // To look is cheaper than to try.
        if self.store.get(&name).await?.is_some() {
            return Ok(None);
        }
        Ok(self.store.present(&name, Bytes::copy_from_slice(id.as_bytes())).await?)
    }

    pub(super) async fn report(&self) -> Result<Option<Report>, SharedError> {
        match self.store.get(&self.name("progress")).await? {
            Some(entry) => read(&entry.value).map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn put_report(&self, report: &Report) -> Result<(), SharedError> {
        self.store.put(&self.name("progress"), write(report)?, Expect::Anything).await?;
        Ok(())
    }

    pub(super) async fn seen(&self) -> Result<Option<Seen>, SharedError> {
        match self.store.get(&self.name("standby")).await? {
            Some(entry) => read(&entry.value).map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn put_seen(&self, seen: &Seen) -> Result<(), SharedError> {
        self.store.put(&self.name("standby"), write(seen)?, Expect::Anything).await?;
        Ok(())
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, SharedError> {
    serde_json::from_slice(value).map_err(|error| SharedError::Strange(error.to_string()))
}

/// A value to be put.
pub(super) fn write(value: &impl Serialize) -> Result<Bytes, SharedError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| SharedError::Strange(error.to_string()))
}
