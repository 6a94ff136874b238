//! Lines of PostgreSQL's log, with `log_line_prefix = '%m [%p]: user=%u,db=%d,app=%a,client=%h '`.

use std::time::SystemTime;

use groove_common::net::Peer;

use super::{Name, Text, Time};
use crate::tap::Seen;

/// How long a statement took, what it waited for a server connection included.
pub(super) fn line(seen: &Seen) -> String {
    let client = match seen.peer {
        Peer::Ip(address) => address.ip().to_string(),
        Peer::Unix => "[local]".to_owned(),
    };
    format!(
        "{} [{}]: user={},db={},app={},client={client} LOG:  duration: {:.3} ms  statement: {}\n",
        Time(seen.at),
        std::process::id(),
        Name(&seen.user),
        Name(&seen.database),
        Name(&seen.application_name),
        (seen.took + seen.waited).as_secs_f64() * 1e3,
        Text(&seen.statement.text),
    )
}

/// The line that tells of lines that were lost.
pub(super) fn lost(lines: u64) -> String {
    let (time, process) = (Time(SystemTime::now()), std::process::id());
    format!("{time} [{process}]: user=,db=,app=,client= WARNING:  {lines} lines of this log were lost\n")
}
