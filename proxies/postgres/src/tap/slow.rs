//! The slow-query log.

use std::time::Duration;

use super::Seen;

/// One line.
pub(super) fn log(seen: &Seen) {
    let (sqlstate, fingerprint) = (seen.sqlstate(), seen.statement.fingerprint());
    let together = (seen.together > 1).then_some(seen.together);
    tracing::warn!(
        took_ms = millis(seen.took),
        wait_ms = (!seen.waited.is_zero()).then(|| millis(seen.waited)),
        database = seen.database,
        user = seen.user,
        peer = %seen.peer,
        application_name = seen.application_name,
        server = seen.server,
        rows = seen.rows,
        outcome = seen.outcome(),
        sqlstate,
        together,
        fingerprint,
        query = &*seen.statement.text,
        "a slow query",
    );
}

/// Three digits are microseconds; more would be noise.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
