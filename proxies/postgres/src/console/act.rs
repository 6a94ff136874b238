//! What an operator may have done: databases paused and resumed, clients ended, the configuration read again.
//!
//! Nothing here may leave half of it behind when its operator goes away: a pause that does not get to its end opens
//! everything again that it has shut.

use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::time::timeout;

use super::Refusal;
use super::command::Command;
use crate::Shared;
use crate::upstream::Directory;

/// How long a KILL waits for server connections to be left; they are closed when they are.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

/// Carries a command out.
pub(super) async fn run(shared: &Shared, command: &Command) -> Result<(), Refusal> {
    let directory = &shared.directory;
    match command {
        Command::Pause { database, timeout } => {
            let names = named(directory, database.as_deref())?;
            let patience = timeout.unwrap_or(directory.config().console.pause_timeout.get());
            pause(directory, names, patience).await
        }
        Command::Resume(database) => {
            let names = named(directory, database.as_deref())?;
            // PgBouncer complains of the one without a name only, and runbooks rely on either.
            let resumed = names.iter().filter(|name| directory.resume(name)).count();
            match resumed {
                0 if database.is_none() => Err(Refusal::new("55000", "no database is paused")),
                _ => Ok(()),
            }
        }
        Command::Disable(database) | Command::Enable(database) => {
            let names = named(directory, Some(database))?;
            let is_disabled = matches!(command, Command::Disable(_));
            names.iter().for_each(|name| directory.disable(name, is_disabled));
            Ok(())
        }
        Command::Kill(database) => kill(shared, named(directory, Some(database))?).await,
        Command::Reconnect(database) => {
            for name in named(directory, database.as_deref())? {
                directory.pools_of(&name).iter().for_each(|pool| pool.reconnect());
            }
            Ok(())
        }
        Command::Reload => match shared.control.reload().await {
            Ok(_) => Ok(()),
            Err(report) => Err(Refusal::new("F0000", report)),
        },
        // Once its operator has heard so.
        Command::Shutdown => Ok(()),
        Command::Suspend => {
            let refusal =
                Refusal::new("0A000", "SUSPEND is not supported: there is no process to hand over to");
            Err(refusal.hint("PAUSE holds clients back, SHUTDOWN drains."))
        }
        Command::Set => {
            let refusal = Refusal::new("0A000", "SET is not supported: the configuration is its file");
            Err(refusal.hint("Change the file, then RELOAD."))
        }
        // Answered before.
        Command::Show(_) | Command::Empty => Ok(()),
    }
}

/// The databases that are meant: all without a name.
fn named(directory: &Directory, database: Option<&str>) -> Result<Vec<String>, Refusal> {
    let config = directory.config();
    match database {
        None => Ok(config.databases.keys().cloned().collect()),
        Some(name) if config.databases.contains_key(name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Refusal::new("3D000", format!("no such database: {name}"))),
    }
}

/// Databases that are held back, and opened again unless all goes well.
struct Held<'a> {
    directory: &'a Directory,
    names: Vec<String>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            self.directory.resume(name);
        }
    }
}

impl Held<'_> {
    fn leased(&self) -> usize {
        let pools = self.names.iter().flat_map(|name| self.directory.pools_of(name));
        pools.map(|pool| pool.status().leased).sum()
    }
}

async fn pause(directory: &Directory, names: Vec<String>, patience: Duration) -> Result<(), Refusal> {
    // Those that are paused already stay so, whatever becomes of the others.
    let names: Vec<_> = names.into_iter().filter(|name| directory.hold(name)).collect();
    if names.is_empty() {
        return Err(Refusal::new("55000", "already paused").hint("RESUME ends it."));
    }
    let mut held = Held { directory, names };
    let pools = held.names.iter().flat_map(|name| directory.pools_of(name));
    let pools: Vec<_> = pools.collect();
    let quiet = timeout(patience, join_all(pools.iter().map(|pool| pool.empty())));
    let resumed = select_all(held.names.iter().map(|name| Box::pin(directory.resumed(name))));
    tokio::select! {
        biased;
        quiet = quiet => if quiet.is_err() {
            let transactions = held.leased();
            let message = format!(
                "not paused within {patience:?}: {transactions} server connections are still in use; \
                 clients are served again"
            );
            return Err(Refusal::new("57014", message).hint(
                "Wait for the transactions that SHOW SERVERS lists as active, or PAUSE db TIMEOUT 'time'.",
            ));
        },
        _ = resumed => return Err(Refusal::new("57014", "not paused: it was resumed meanwhile")),
    }
    held.names.clear();
    Ok(())
}

/// As PgBouncer does it: clients and connections end at once, and who comes anew waits for a RESUME.
async fn kill(shared: &Shared, names: Vec<String>) -> Result<(), Refusal> {
    let directory = &shared.directory;
    for name in &names {
        directory.hold(name);
    }
    shared
        .live
        .clients()
        .into_iter()
        .filter(|client| names.contains(&client.pool.database))
        .for_each(|client| client.kill());
    let pools: Vec<_> = names.iter().flat_map(|name| directory.pools_of(name)).collect();
    pools.iter().for_each(|pool| pool.reconnect());
    // What takes longer to be cancelled is closed then.
    let _late = timeout(KILL_WAIT_MAX, join_all(pools.iter().map(|pool| pool.empty()))).await;
    Ok(())
}
