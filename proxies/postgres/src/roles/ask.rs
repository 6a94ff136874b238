//! Asking one server what it is, on a connection that is kept for it.

use bytes::Bytes;
use groove_common::discovery::Endpoint;

use super::seen::Sighting;
use crate::error::Error;
use crate::upstream::{Server, Target, connect};
use crate::wire::backend::error_field;

/// What any role may ask, and every release since 10 answers. A primary's timeline is taken from its WAL: the control
/// file has the new one only after the first checkpoint of a promotion.
macro_rules! question {
    ($timeline_of_replica:literal) => {
        concat!(
            "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN ",
            $timeline_of_replica,
            " ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0', \
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() END - '0/0', \
            CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END - '0/0', \
            current_setting('wal_block_size')"
        )
    };
}

/// From the most telling to the least: the second where the control file may not be read, the third for servers that
/// call themselves PostgreSQL and have no WAL to speak of.
const QUESTIONS: [&str; 3] = [
    question!("(SELECT to_hex(timeline_id) FROM pg_control_checkpoint())"),
    question!("'0'"),
    "SELECT pg_is_in_recovery(), '0', 0, 0, 0, 8192",
];

/// Why a server has not said what it is.
#[derive(Debug)]
pub(super) enum Silence {
    /// It cannot be reached, starts or stops.
    Lost(Error),
    /// It does not answer in time: it may be gone, or busy.
    Late,
    /// It is there, and does not let us ask.
    Refused(Error),
}

impl Silence {
    fn of(error: Error) -> Silence {
        let is_no = |code: &[u8]| !code.starts_with(b"57P");
        let is_refused = if let Error::Refused(body) = &error {
            error_field(body, b'C').is_none_or(is_no)
        } else {
            matches!(error, Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven)
        };
        if is_refused { Silence::Refused(error) } else { Silence::Lost(error) }
    }
}

/// A connection to ask on.
pub(super) struct Line {
    server: Server,
    /// The most telling question that it answers.
    question: usize,
}

impl Line {
    /// Logs in. The names in the question mean the system's own, whatever the role's or database's defaults.
    pub(super) async fn open(target: &Target, endpoint: &Endpoint) -> Result<Line, Silence> {
        let pinned = [
            ("search_path".to_owned(), "pg_catalog, pg_temp".to_owned()),
            ("application_name".to_owned(), "groove monitor".to_owned()),
        ];
        let server = Box::pin(connect(target, &endpoint.address, &pinned, target.connect)).await;
        Ok(Line { server: server.map_err(Silence::of)?, question: 0 })
    }

    /// Asks once.
    pub(super) async fn ask(&mut self) -> Result<Sighting, Silence> {
        loop {
            let Some(question) = QUESTIONS.get(self.question) else {
                return Err(Silence::Refused(Error::Setup));
            };
            match self.server.first_simple_row(question).await {
                Ok(row) => return read(&row).ok_or(Silence::Refused(Error::Setup)),
                Err(error) => {
                    let silence = Silence::of(error);
                    if !matches!(silence, Silence::Refused(_)) || self.question + 1 == QUESTIONS.len() {
                        return Err(silence);
                    }
                    self.question += 1;
                }
            }
        }
    }

    /// Returns when the server has hung up, or said a farewell.
    pub(super) async fn ended(&mut self) {
        std::future::poll_fn(|cx| match self.server.stream.is_stale(cx) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        })
        .await;
    }
}

fn read(row: &[Option<Bytes>]) -> Option<Sighting> {
    let [recovery, timeline, applied, received, inserted, block] = row else { return None };
    let text = |value: &Option<Bytes>| Some(std::str::from_utf8(value.as_deref()?).ok()?.to_owned());
    let position = |value: &Option<Bytes>| text(value).and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Sighting {
        in_recovery: text(recovery)? == "t",
        timeline: u32::from_str_radix(&text(timeline)?, 16).ok()?,
        applied: position(applied),
        received: position(received),
        inserted: last_byte(position(inserted), position(block)),
    })
}

/// Where nothing follows the header of a page, replicas do not count the header (24 bytes, in pages of `block` bytes) to
/// what they have replayed. The longer one of a segment's first page is let be: it costs a wait for the next record.
fn last_byte(inserted: u64, block: u64) -> u64 {
    match inserted.checked_rem(block) {
        Some(24) => inserted - 24,
        Some(_) | None => inserted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_answer() {
        let row = |values: [Option<&'static str>; 5]| {
            values.into_iter().chain([Some("8192")]).map(|value| value.map(Bytes::from)).collect::<Vec<_>>()
        };
        let primary =
            read(&row([Some("f"), Some("0000000A"), Some("50331912"), None, Some("50331920")])).unwrap();
        assert_eq!((primary.in_recovery, primary.timeline, primary.applied), (false, 10, 50_331_912));
        assert_eq!(primary.inserted, 50_331_920);
        let replica = read(&row([Some("t"), Some("0"), Some("7"), Some("9"), None])).unwrap();
        assert_eq!((replica.in_recovery, replica.applied, replica.received), (true, 7, 9));
        assert!(read(&row([None, Some("0"), None, None, None])).is_none());
        assert!(read(&[]).is_none());
    }

    #[test]
    fn a_page_that_has_a_header_only_is_not_waited_for() {
        assert_eq!(last_byte(3 * 8192 + 24, 8192), 3 * 8192);
        assert_eq!(last_byte(3 * 8192 + 32, 8192), 3 * 8192 + 32);
        assert_eq!(last_byte(24, 0), 24);
    }
}
