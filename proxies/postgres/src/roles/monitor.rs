//! The tasks that ask: one a server, for as long as it is among a database's.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use groove_common::discovery::{Cluster, Endpoint, fresh_dice};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Roles;
use super::ask::{Line, Silence};
use super::seen::Sighting;

/// Between two questions to a server, whoever is in a hurry.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Keeps one asking task for each server whose role is not declared. Aborted with the roles.
pub(super) async fn run(roles: Weak<Roles>, cluster: Arc<Cluster>) {
    let mut tasks: HashMap<_, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        let snapshot = cluster.snapshot();
        match roles.upgrade() {
            Some(roles) => roles.take_members(),
            None => return,
        }
        let asked = snapshot.members.iter().filter(|member| member.described.role.is_none());
        let asked: Vec<_> = asked.map(|member| Arc::clone(&member.endpoint)).collect();
        tasks.retain(|id, _| asked.iter().any(|endpoint| endpoint.id == *id));
        for endpoint in asked {
            tasks.entry(endpoint.id).or_insert_with(|| {
                AbortOnDropHandle::new(tokio::spawn(watch(Weak::clone(&roles), endpoint)))
            });
        }
        cluster.changed(snapshot.generation).await;
    }
}

/// Asks one server again and again: at its pace, when somebody has a reason to doubt, and when it hangs up.
async fn watch(roles: Weak<Roles>, endpoint: Arc<Endpoint>) {
    let Some(mut nudges) = roles.upgrade().map(|roles| roles.nudged()) else { return };
    let (mut line, mut dice) = (None, fresh_dice());
    loop {
        let pause = {
            let Some(roles) = roles.upgrade() else { return };
            nudges.mark_unchanged();
            let asked = Instant::now();
            match ask(&roles, &endpoint, &mut line).await {
                Some(Ok(sighting)) => roles.saw(endpoint.id, sighting, asked),
                Some(Err(Silence::Lost(error))) => roles.lost(endpoint.id, error.to_string()),
                Some(Err(Silence::Late)) => roles.late(endpoint.id),
                Some(Err(Silence::Refused(error))) => {
                    roles.mute(endpoint.id, error.to_string());
                }
                // Nobody is there who wants to know.
                None => {}
            }
            roles.pace().mul_f64(0.9 + 0.2 * dice.unit())
        };
        sleep(PAUSE_MIN.min(pause)).await;
        rest(pause.saturating_sub(PAUSE_MIN), &mut nudges, &mut line).await;
    }
}

/// Until it is time to ask again.
async fn rest(pause: Duration, nudges: &mut watch::Receiver<()>, line: &mut Option<Line>) {
    let hung_up = async {
        match line {
            Some(line) => line.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep(pause) => {}
        // An error says that the roles are gone, which the loop will see.
        _ = nudges.changed() => {}
        () = hung_up => {}
    }
}

/// Asks once, on the line that is kept or, if that is gone, on a new one.
async fn ask(
    roles: &Roles,
    endpoint: &Endpoint,
    line: &mut Option<Line>,
) -> Option<Result<Sighting, Silence>> {
    let time_max = roles.monitor.timeout.get();
    if let Some(mut kept) = line.take() {
        match timeout(time_max, kept.ask()).await {
            Ok(Ok(sighting)) => {
                *line = Some(kept);
                return Some(Ok(sighting));
            }
            // Its connection may have been ended for reasons of its own.
            Ok(Err(_)) => {}
            Err(_) => return Some(Err(Silence::Late)),
        }
    }
    let target = roles.asker()?;
    let fresh = async {
        let mut fresh = Line::open(&target, endpoint).await?;
        let sighting = fresh.ask().await?;
        *line = Some(fresh);
        Ok(sighting)
    };
    let answer = timeout(time_max, fresh).await.unwrap_or(Err(Silence::Late));
    if let Err(Silence::Refused(_)) = answer {
        roles.try_another_asker(&target);
    }
    Some(answer)
}
