//! Asking a server what a session has left on its connection. The answer is the server's, so it is right whatever
//! the text was: rolled back, set by a function, spelt in another way.

use std::fmt::Write as _;

use bytes::Bytes;

use super::settings::quote;
use crate::sql::Kinds;

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Kinds of things that may be there.
    pub kinds: Kinds,
    /// Settings that no list of the server has: an application's own, with a dot in their name.
    pub custom: Vec<Box<str>>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Settings with a value of the session's own, and as whom it acts, in lower case.
    pub settings: Vec<(Box<str>, Box<str>)>,
    /// Names of statements that were prepared by SQL.
    pub prepared: Vec<Box<str>>,
    /// Channels it listens to.
    pub channels: Vec<Bytes>,
    /// What else there is.
    pub others: Kinds,
}

/// What each kind of row begins with, and the query for it. Operators are named in full: the session's own
/// search_path is in force.
const QUERIES: [(Kinds, &str); 5] = [
    (
        Kinds::PREPARED,
        "SELECT 'p',name::pg_catalog.text,'' FROM pg_catalog.pg_prepared_statements WHERE from_sql",
    ),
    (Kinds::CURSORS, "(SELECT 'c','','' FROM pg_catalog.pg_cursors LIMIT 1)"),
    (Kinds::LISTENS, "SELECT 'l',channel,'' FROM pg_catalog.pg_listening_channels() AS listening (channel)"),
    (
        Kinds::LOCKS,
        "(SELECT 'a','','' FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() LIMIT 1)",
    ),
    (
        Kinds::TEMPORARY,
        "(SELECT 't','','' FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615 \
         AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() LIMIT 1)",
    ),
];

/// `transaction_…` are the transaction's, `exit_on_error` is ours.
const SETTINGS: &str = "SELECT 's',name::pg_catalog.text,setting FROM pg_catalog.pg_settings \
     WHERE source OPERATOR(pg_catalog.=) 'session' \
     UNION ALL SELECT 's','role',pg_catalog.current_setting('role') \
     UNION ALL SELECT 's','session_authorization',pg_catalog.current_setting('session_authorization')";

impl Survey {
    /// One query. Its rows are for [`Found::read`].
    pub fn query(&self) -> String {
        let parts = QUERIES.iter().filter(|(kind, _)| self.kinds.contains(*kind)).map(|(_, query)| *query);
        let settings = self.kinds.contains(Kinds::SETTINGS).then_some(SETTINGS);
        let mut query = parts.chain(settings).collect::<Vec<_>>().join(" UNION ALL ");
        if self.kinds.contains(Kinds::SETTINGS) {
            for name in &self.custom {
                let name = quote(name);
                // It cannot fail: a String takes everything.
                let _ = write!(query, " UNION ALL SELECT 's',{name},pg_catalog.current_setting({name},true)");
            }
        }
        query
    }
}

impl Found {
    /// Reads the rows of a survey; `None` if one of them cannot be.
    pub fn read(rows: &[Vec<Option<Bytes>>]) -> Option<Found> {
        let mut found = Found::default();
        for row in rows {
            let [Some(kind), Some(name), value] = row.as_slice() else { return None };
            let text = |bytes: &Bytes| std::str::from_utf8(bytes).ok().map(Box::<str>::from);
            match (&kind[..], value) {
                // An application's own setting that was never set.
                (b"s", None) => {}
                (b"s", Some(value)) => {
                    found.settings.push((text(name)?.to_ascii_lowercase().into(), text(value)?));
                }
                (b"p", _) => found.prepared.push(text(name)?),
                (b"c", _) => found.others |= Kinds::CURSORS,
                (b"l", _) => {
                    found.channels.push(name.clone());
                    found.others |= Kinds::LISTENS;
                }
                (b"a", _) => found.others |= Kinds::LOCKS,
                (b"t", _) => found.others |= Kinds::TEMPORARY,
                _ => return None,
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: [&'static str; 3]) -> Vec<Option<Bytes>> {
        columns.iter().map(|text| Some(Bytes::from_static(text.as_bytes()))).collect()
    }

    #[test]
    fn only_what_may_be_there_is_asked_for() {
        let survey = Survey { kinds: Kinds::LOCKS, custom: vec!["a.b".into()] };
        assert!(survey.query().contains("pg_locks") && !survey.query().contains("UNION"));
        let survey = Survey { kinds: Kinds::LOCKS | Kinds::SETTINGS, custom: vec!["a'.b".into()] };
        assert!(
            survey
                .query()
                .ends_with("UNION ALL SELECT 's',E'a\\'.b',pg_catalog.current_setting(E'a\\'.b',true)")
        );
    }

    #[test]
    fn rows_are_read_or_refused() {
        let mut unset = row(["s", "my.own", ""]);
        unset[2] = None;
        let rows = [row(["s", "Work_Mem", "64"]), unset, row(["p", "p1", ""]), row(["t", "", ""])];
        let found = Found::read(&rows).unwrap();
        assert_eq!(found.settings, [("work_mem".into(), "64".into())]);
        assert_eq!((found.prepared, found.others), (vec!["p1".into()], Kinds::TEMPORARY));
        let found = Found::read(&[row(["l", "one", ""]), row(["l", "Two", ""])]).unwrap();
        assert_eq!((found.channels, found.others), (vec!["one".into(), "Two".into()], Kinds::LISTENS));
        assert_eq!(Found::read(&[row(["x", "", ""])]), None);
        assert_eq!(Found::read(&[vec![]]), None);
    }
}
