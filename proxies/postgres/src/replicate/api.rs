//! Groups over HTTP: how they are, and what an operator may ask of them.

use std::sync::Arc;

use groove_common::admin::{Request, Response, Routes, json, plain, segment};
use http::StatusCode;
use serde_json::{Value, json};

use super::group::{Group, State};
use super::verify;
use crate::Shared;

/// A group as an operator sees it.
pub fn status(group: &Group) -> Value {
    let view = group.now();
    let log = group.log();
    let length = log.as_ref().map_or(0, |log| log.len());
    let members: Vec<Value> = view
        .members
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let behind = if member.state == State::In { 0 } else { length.saturating_sub(member.position) };
            json!({
                "address": member.address.to_string(),
                "state": member.state.word(),
                "is_leader": view.leader == Some(index),
                "behind": behind,
                "reason": member.state.why(),
            })
        })
        .collect();
    let (running, waiting) = group.locks.counts();
    json!({
        "database": group.name,
        "mode": "synchronous",
        "served": view.closed.is_none() && view.leader.is_some(),
        "reason": view.closed,
        "epoch": group.epoch(),
        "log_transactions": length,
        "log_bytes": log.map_or(0, |log| log.bytes()),
        "writing": running,
        "waiting": waiting,
        "members": members,
    })
}

/// The routes.
pub fn routes(shared: &Arc<Shared>) -> Routes {
    let (all, verified, rejoined) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    Routes::new()
        .get("/api/v1/replicate", "replicated groups and their members", move |_| {
            let groups: Vec<Value> = all.groups.all().map(|group| status(group)).collect();
            async move { json(&groups) }
        })
        .post("/api/v1/replicate/{database}/verify", "compares the members of a group", move |request| {
            let group = named(&verified, &request);
            async move {
                match group {
                    Ok(group) => match verify::verify(&group).await {
                        Ok(findings) => json(&findings),
                        Err(error) => plain(StatusCode::CONFLICT, error),
                    },
                    Err(response) => *response,
                }
            }
        })
        .post(
            "/api/v1/replicate/{database}/rejoin",
            "lets members that have diverged try to come in again",
            move |request| {
                let group = named(&rejoined, &request);
                async move {
                    match group {
                        Ok(group) => json(&rejoin(&group)),
                        Err(response) => *response,
                    }
                }
            },
        )
}

fn named(shared: &Shared, request: &Request) -> Result<Arc<Group>, Box<Response>> {
    let name = segment(request, 3).unwrap_or_default();
    let missing = || {
        let why = format!("database `{name}` is not replicated");
        Box::new(plain(StatusCode::NOT_FOUND, why))
    };
    shared.groups.get(&name).cloned().ok_or_else(missing)
}

/// Those who were out for good are looked at again: fed, compared, and let in if they are equal.
fn rejoin(group: &Group) -> Vec<String> {
    let mut again = Vec::new();
    group.change(|view| {
        for member in &mut view.members {
            if !matches!(member.state, State::In | State::CatchingUp | State::Verifying) {
                member.state = State::Aside("asked to come in again".to_owned());
                again.push(member.address.to_string());
            }
        }
    });
    group.nudge.notify_waiters();
    again
}
