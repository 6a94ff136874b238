//! Malformed and ambiguous messages over raw sockets: what has to come of each, and docs/http-conformance.md, where the
//! same list stands beside what nginx and HAProxy did.

mod case;
mod observe;
mod peers;
mod replies;
mod requests;
mod table;

use std::collections::BTreeMap;

use harness::paths;

use case::Outcome;
use observe::{Behaviour, Origin, Relayed, ask, fetch};
use peers::Peers;
use replies::Fate;

/// Writes docs/http-conformance.md anew, nginx's and HAProxy's columns with it.
const WRITE: &str = "GROOVE_CONFORMANCE";

#[test]
fn every_request_and_reply_has_its_outcome_and_its_row() {
    let (cases, replies) = (requests::requests(), replies::replies());
    assert!(cases.len() >= 150 && replies.len() >= 50, "{} requests, {} replies", cases.len(), replies.len());
    let origin = Origin::start(replies.clone()).unwrap();
    let peers = Peers::start(origin.address(), std::env::var_os(WRITE).is_some()).unwrap();
    let mut wrong = Vec::new();
    let mut rows = Vec::new();
    for case in &cases {
        let ours = ask(peers.ours(), &case.bytes(), &origin, Some(case.outcome));
        if let Some(problem) = request_problem(case, &ours) {
            wrong.push(format!("{}: {}: {problem}", case.class, case.name));
        }
        let others = peers.others().map(|address| ask(address, &case.bytes(), &origin, None).to_string());
        rows.push(table::Row::request(case, &ours, others.collect()));
    }
    for (index, reply) in replies.iter().enumerate() {
        let ours = fetch(peers.ours(), index, reply, &origin, Some(reply.fate));
        if let Some(problem) = reply_problem(reply.fate, &ours) {
            wrong.push(format!("reply: {}: {problem}", reply.name));
        }
        let others = peers.others().map(|address| fetch(address, index, reply, &origin, None).to_string());
        rows.push(table::Row::reply(reply, &ours, others.collect()));
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    // Each refusal has left its reason in the log.
    let refused = cases.iter().filter(|case| matches!(case.outcome, Outcome::Refused(_))).count();
    harness::eventually("a line of each refusal", || {
        let lines = peers.access_log();
        (lines.iter().filter(|line| line.contains("\"code\":\"H26\"")).count() >= refused).then_some(())
    })
    .unwrap();
    let file = paths::repository().join("docs/http-conformance.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&file, table::document(&rows, &peers.versions().unwrap())).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let missing: Vec<_> =
        rows.iter().filter(|row| !text.contains(&row.ours())).map(table::Row::ours).collect();
    assert!(
        missing.is_empty(),
        "`make conformance` writes docs/http-conformance.md anew; it lacks\n{}",
        missing.join("\n")
    );
}

#[test]
fn no_case_stands_twice() {
    let mut seen = BTreeMap::new();
    for case in requests::requests() {
        let before = seen.insert(case.bytes(), format!("{}: {}", case.class, case.name));
        assert_eq!(before, None, "{}", case.name);
    }
}

fn request_problem(case: &case::Case, ours: &Behaviour) -> Option<String> {
    let wanted = match case.outcome {
        Outcome::Refused(status) => Behaviour::own(vec![status], true, 0),
        Outcome::Answered(status) => Behaviour::own(vec![status], false, 0),
        Outcome::Served => Behaviour::own(vec![200], false, 1),
        Outcome::Closes => Behaviour::own(vec![200], true, 1),
        Outcome::Twice => Behaviour::own(vec![200, 200], false, 2),
        Outcome::ThenRefused(status) => Behaviour::own(vec![200, status], true, 1),
    };
    if (&ours.statuses, ours.closed, ours.upstream) != (&wanted.statuses, wanted.closed, wanted.upstream) {
        return Some(format!("{ours} where it must be {wanted}"));
    }
    if !ours.seen.contains(case.sees) {
        return Some(format!("the server saw no {:?} in {:?}", case.sees, ours.seen));
    }
    (!case.hides.is_empty() && ours.seen.contains(case.hides))
        .then(|| format!("the server saw {:?} in {:?}", case.hides, ours.seen))
}

fn reply_problem(fate: Fate, ours: &Relayed) -> Option<String> {
    let is_right = match fate {
        Fate::Gateway(code) => ours.status == Some(502) && ours.code == code && ours.server_closed,
        Fate::Relayed(status, stays) => {
            ours.status == Some(status) && ours.server_closed != stays && !ours.cut
        }
        Fate::Cut(status) => ours.status == Some(status) && ours.server_closed && ours.cut,
    };
    (!is_right).then(|| format!("{ours} where it must be {fate:?}"))
}
