//! The running proxies, asked together: what one of them does not do is done by none.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use groove_common::admin::{Client, ClientError};
use serde::Serialize;
use serde_json::{Value, json};

use super::api::{Close, Of, Prepare, Seen, Switch};
use super::fault::{Fault, Outcome};
use super::policy::phase::{Journal, Side};

/// All proxies that clients of the database come through.
pub(super) struct Proxies(pub(super) Vec<Client>);

impl Proxies {
    /// Each with what it tells.
    pub(super) async fn seen(&self) -> Outcome<Vec<Seen>> {
        let seen = try_join_all(self.0.iter().map(|client| client.get("/api/v1/migrate"))).await?;
        seen.into_iter()
            .map(|value| {
                serde_json::from_value(value)
                    .map_err(|error| Fault::Refused(format!("a proxy of another version: {error}")))
            })
            .collect()
    }

    async fn each(&self, path: &str, body: &impl Serialize) -> Vec<Result<Value, ClientError>> {
        let body = json!(body);
        join_all(self.0.iter().map(|client| client.post(path, &body))).await
    }

    async fn all(&self, path: &str, body: &impl Serialize) -> Outcome<Vec<Value>> {
        Ok(self.each(path, body).await.into_iter().collect::<Result<_, _>>()?)
    }

    /// Connections to where the database goes; how many.
    pub(super) async fn prepare(&self, journal: &Journal, to: Side) -> Outcome<u64> {
        let body = Prepare { of: of(journal), to: journal.address(to).clone() };
        let answers = self.all("/api/v1/migrate/prepare", &body).await?;
        Ok(answers.iter().filter_map(|answer| answer.get("connections")?.as_u64()).sum())
    }

    /// Closes all gates, or none.
    pub(super) async fn close(&self, journal: &Journal, budget: Duration, lease: Duration) -> Outcome<()> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let body = Close { of: of(journal), budget_ms: ms(budget), lease_ms: ms(lease) };
        let answers = self.each("/api/v1/migrate/close", &body).await;
        let failed = answers.into_iter().find_map(Result::err);
        let Some(failed) = failed else { return Ok(()) };
        // One that does not answer opens by itself.
        drop(self.each("/api/v1/migrate/open", &of(journal)).await);
        match &failed {
            ClientError::Refused { status, message, .. } if status.as_u16() == 408 => {
                Err(Fault::Budget(message.clone()))
            }
            ClientError::Refused { .. } | ClientError::Unreachable { .. } | ClientError::Broken { .. } => {
                Err(failed.into())
            }
        }
    }

    /// Sends clients to a side.
    pub(super) async fn switch(&self, journal: &Journal, serving: Side) -> Outcome<()> {
        let (source, target) = (journal.source.clone(), journal.target.clone());
        let body = Switch { of: of(journal), source, target, serving };
        self.all("/api/v1/migrate/switch", &body).await.map(drop)
    }

    /// Opens all gates.
    pub(super) async fn open(&self, journal: &Journal) -> Outcome<()> {
        self.all("/api/v1/migrate/open", &of(journal)).await.map(drop)
    }

    /// Forgets moves that are in the files by now; the databases that are not.
    pub(super) async fn forget(&self, journal: &Journal) -> Outcome<Vec<String>> {
        let answers = self.all("/api/v1/migrate/forget", &of(journal)).await?;
        let names = answers.iter().filter_map(|answer| answer.get("kept")?.as_array()).flatten();
        let mut names: Vec<_> = names.filter_map(Value::as_str).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn of(journal: &Journal) -> Of {
    Of { holder: journal.id.clone(), database: journal.database.clone(), names: journal.names.clone() }
}
