use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use groove_common::config::check_text;

use super::findings::{CHECKS, Check, Weight, extensions, locales};
use super::listing::{divide, without_psql};
use super::phase::{Journal, Phase, Side, Step, VERSION, Verb, next};
use super::progress::Progress;
use super::roles::missing;
use super::route::{Route, Routes, Standing};
use super::sql;
use super::verification::{Checksum, Checksums, Verification};
use crate::config::Config;

const VERBS: [Verb; 4] = [Verb::Start, Verb::Cutover, Verb::Rollback, Verb::Finish];

fn phases() -> Vec<Phase> {
    let sides = [Side::Source, Side::Target];
    let of_sides = sides.into_iter().flat_map(|side| {
        [
            Phase::Ready { serving: side },
            Phase::Gate { to: side },
            Phase::Undoing { to: side },
            Phase::Switched { to: side, lsn: "0/1".to_owned() },
            Phase::Finishing { serving: side },
        ]
    });
    [Phase::Preparing, Phase::Copying, Phase::Synced].into_iter().chain(of_sides).collect()
}

fn journal(phase: Phase) -> Journal {
    Journal {
        version: VERSION,
        id: "1a2b3c4d".to_owned(),
        database: "shop".to_owned(),
        names: vec!["shop".to_owned()],
        dbname: "shop".to_owned(),
        source: "127.0.0.1:5432".parse().unwrap(),
        target: "127.0.0.1:5433".parse().unwrap(),
        begun: String::new(),
        phase,
        connection_limit: -1,
        retry_interval: [None, None],
        identities: Vec::new(),
        made_database: true,
        cuts: Vec::new(),
    }
}

#[test]
fn what_was_begun_and_not_decided_is_undone_and_what_was_decided_is_done() {
    for verb in VERBS {
        for to in [Side::Source, Side::Target] {
            assert_eq!(next(verb, Some(&Phase::Gate { to })), Step::Undo(to));
            assert_eq!(next(verb, Some(&Phase::Undoing { to })), Step::Undo(to));
            let switched = Phase::Switched { to, lsn: String::new() };
            assert_eq!(next(verb, Some(&switched)), Step::Redo(to));
            assert_eq!(journal(switched).serving(), to);
            assert_eq!(journal(Phase::Gate { to }).serving(), to.other());
        }
    }
}

/// Removing serves the side that serves, and a cutover begins only where the other side follows.
#[test]
fn no_verb_takes_a_database_from_its_clients() {
    for verb in VERBS {
        for phase in phases() {
            let serving = journal(phase.clone()).serving();
            match next(verb, Some(&phase)) {
                Step::Clear(side) => assert_eq!(side, serving, "{verb:?} in {phase:?}"),
                Step::Cut(to) => assert_eq!(phase, Phase::Ready { serving: to.other() }),
                Step::Undo(to) => assert_eq!(to, serving.other()),
                Step::Redo(to) => assert_eq!(to, serving),
                Step::Prepare | Step::Copy | Step::Complete => assert_eq!(serving, Side::Source),
                Step::Done(_) | Step::Refuse(_) => {}
            }
        }
    }
    assert_eq!(next(Verb::Cutover, Some(&Phase::Ready { serving: Side::Source })), Step::Cut(Side::Target));
    assert_eq!(next(Verb::Rollback, Some(&Phase::Ready { serving: Side::Target })), Step::Cut(Side::Source));
    assert_eq!(next(Verb::Rollback, Some(&Phase::Copying)), Step::Clear(Side::Source));
    assert_eq!(next(Verb::Start, None), Step::Prepare);
    assert!(matches!(next(Verb::Cutover, None), Step::Refuse(_)));
    assert!(matches!(next(Verb::Cutover, Some(&Phase::Synced)), Step::Refuse(_)));
}

#[test]
fn a_journal_is_read_as_it_was_written() {
    for phase in phases() {
        let journal = journal(phase);
        let written = serde_json::to_vec(&journal).unwrap();
        assert_eq!(serde_json::from_slice::<Journal>(&written).unwrap(), journal);
        assert!(!journal.told().is_empty());
    }
}

#[test]
fn keys_come_before_the_rows_and_all_else_that_can_wait_after() {
    let listing = ";\n; Archive created at 2026\n;\n\
        5; 2615 2200 SCHEMA - public pg_database_owner\n\
        215; 1259 16385 TABLE public my table app\n\
        3000; 2606 16400 CONSTRAINT public my table my pkey app\n\
        3001; 2606 16401 CONSTRAINT public my table my unique app\n\
        3002; 0 0 INDEX ATTACH public part_pkey app\n\
        3003; 0 0 INDEX ATTACH public part_idx app\n\
        3004; 1259 16402 INDEX public by_name app\n\
        3005; 2620 16403 TRIGGER public my table t app\n\
        3006; 2606 16404 FK CONSTRAINT public my table f app\n\
        3007; 3466 16405 EVENT TRIGGER - groove_freeze_end postgres\n\
        3008; 3466 16406 EVENT TRIGGER - their_own postgres\n\
        3009; 2613 16407 BLOB - 16407 app\n\
        3010; 0 16410 MATERIALIZED VIEW DATA public mv app\n\
        3011; 0 0 ACL - TABLE my table app\n";
    let keys = [("public".to_owned(), "my pkey".to_owned()), ("public".to_owned(), "part_pkey".to_owned())];
    let parts = divide(listing, &keys);
    let numbers = |part: &str| -> Vec<String> {
        part.lines().map(|line| line.split(';').next().unwrap().to_owned()).collect()
    };
    assert_eq!(numbers(&parts.before), ["5", "215", "3011"]);
    assert_eq!(numbers(&parts.keys), ["3000", "3002"]);
    assert_eq!(numbers(&parts.after), ["3001", "3003", "3004", "3005", "3006", "3008", "3010"]);
}

#[test]
fn what_only_psql_understands_is_left_out_of_a_script() {
    let script = "\\restrict aBc\nSELECT '\\restricted\n\\';\n\\unrestrict aBc\n";
    assert_eq!(without_psql(script), "SELECT '\\restricted\n\\';\n");
}

#[test]
fn only_roles_that_are_missing_are_made() {
    let dump = "--\n-- Roles; and more\n--\nSET default_transaction_read_only = off;\n\
        CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b';\n\
        CREATE ROLE \"odd; \"\"name\";\nALTER ROLE \"odd; \"\"name\" WITH NOLOGIN;\n\
        COMMENT ON ROLE \"odd; \"\"name\" IS 'it''s; odd';\n\
        GRANT readers TO app GRANTED BY postgres;\n\
        GRANT readers TO \"odd; \"\"name\" WITH ADMIN OPTION GRANTED BY postgres;\n\
        ALTER ROLE app SET search_path TO 'x';\n";
    let there = BTreeSet::from(["app".to_owned(), "postgres".to_owned()]);
    assert_eq!(
        missing(dump, &there),
        [
            "CREATE ROLE \"odd; \"\"name\"",
            "ALTER ROLE \"odd; \"\"name\" WITH NOLOGIN",
            "COMMENT ON ROLE \"odd; \"\"name\" IS 'it''s; odd'",
            "GRANT readers TO \"odd; \"\"name\" WITH ADMIN OPTION",
        ]
    );
    assert_eq!(missing(dump, &BTreeSet::new()).len(), 8);
}

#[test]
fn rows_are_the_same_or_the_tables_are_named() {
    let sums = |tables: &[(&str, u64, &str)]| -> Checksums {
        let of = |(name, rows, sum): &(&str, u64, &str)| {
            ((*name).to_owned(), Checksum { rows: *rows, sum: (*sum).to_owned() })
        };
        tables.iter().map(of).collect()
    };
    let one = sums(&[("a", 2, "5"), ("b", 1, "7")]);
    assert_eq!(Verification::of(&one, &one.clone()), Verification::Same { tables: 2, rows: 3 });
    for (other, named) in [
        (sums(&[("a", 2, "6"), ("b", 1, "7")]), "a: 2 rows on both, not all the same"),
        (sums(&[("a", 3, "5"), ("b", 1, "7")]), "a: 2 rows on one side, 3 on the other"),
        (sums(&[("a", 2, "5")]), "b: on one side only"),
        (sums(&[("a", 2, "5"), ("b", 1, "7"), ("c", 0, "0")]), "c: on one side only"),
    ] {
        assert_eq!(Verification::of(&one, &other), Verification::Different(vec![named.to_owned()]));
    }
}

#[test]
fn the_file_counts_unless_it_names_the_server_that_was_left() {
    let config = |endpoints: &str| -> Arc<Config> {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:6432}}]\n\
             databases: {{shop: {{endpoints: {endpoints}}}, other: {{endpoints: [127.0.0.1:5432]}}}}\n\
             users: {{app: {{password: secret}}}}\n"
        );
        Arc::new(check_text("config", &text).unwrap())
    };
    let route = Route {
        source: "127.0.0.1:5432".parse().unwrap(),
        target: "127.0.0.1:5433".parse().unwrap(),
        serving: Side::Target,
    };
    let routes = Routes([("shop".to_owned(), route.clone())].into());
    let cases = [
        ("[127.0.0.1:5432]", Standing::InEffect, "[127.0.0.1:5433]"),
        ("[127.0.0.1:5433]", Standing::Agrees, "[127.0.0.1:5433]"),
        ("[127.0.0.1:5434]", Standing::Overruled, "[127.0.0.1:5434]"),
        ("[127.0.0.1:5432, 127.0.0.1:5434]", Standing::Overruled, "[127.0.0.1:5432, 127.0.0.1:5434]"),
    ];
    for (written, standing, in_force) in cases {
        let written = config(written);
        assert_eq!(route.standing(&written.databases["shop"].endpoints), standing);
        assert_eq!(*routes.apply(&written), *config(in_force));
    }
}

#[test]
fn what_is_missing_on_the_target_is_named() {
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    let available = [pair("hstore", "1.8"), pair("plpgsql", "1.0")];
    let found =
        extensions(&[pair("hstore", "1.7"), pair("plpgsql", "1.0"), pair("postgis", "3")], &available);
    let found: Vec<_> = found.iter().map(|finding| (finding.weight, finding.what.as_str())).collect();
    assert_eq!(
        found,
        [
            (Weight::Note, "hstore is 1.7 on the source and will be another version on the target"),
            (Weight::Blocker, "postgis 3 is not available on the target")
        ]
    );
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(locales(&names(&["C.UTF-8", "C"]), &names(&["C.utf8"])), None);
    assert!(locales(&names(&["de_DE.UTF-8"]), &names(&["C.utf8"])).unwrap().what.contains("de_DE.UTF-8"));
}

#[test]
fn many_of_a_kind_are_one_finding() {
    let check: &Check = &CHECKS[0];
    assert_eq!(check.finding(&[]), None);
    let rows: Vec<_> = (0..20).map(|row| format!("row {row}")).collect();
    let finding = check.finding(&rows).unwrap();
    assert!(finding.what.ends_with("row 11; and 8 more"), "{}", finding.what);
}

#[test]
fn time_left_is_by_the_rate_of_late() {
    let mut progress = Progress::default();
    assert_eq!(progress.left(), None);
    for second in 0..40 {
        // It was slow at first.
        let done = if second < 20 { second } else { 20 + (second - 20) * 100 };
        progress.note(Duration::from_secs(second), done << 20, 3000 << 20);
    }
    assert_eq!(progress.rate(), Some(f64::from(100 << 20)));
    assert_eq!(progress.left(), Some(Duration::from_secs_f64(10.8)));
    assert_eq!(progress.told(), "1920.0 MiB of 3000.0 MiB, 100.0 MiB/s, 10s left");
}

#[test]
fn nothing_breaks_out_of_its_quotes() {
    assert_eq!(sql::ident("a\"b"), "\"a\"\"b\"");
    assert_eq!(sql::literal("it's"), "'it''s'");
    assert_eq!(sql::literal("a\\'b"), "E'a\\\\''b'");
    let values: Vec<_> = (0..1001).map(|n| (format!("s{n}"), n.to_string(), n == 0)).collect();
    let set = sql::set_sequences(&values).unwrap();
    assert!(set.starts_with("SELECT setval('s0', 0, true), setval('s1', 1, false)"));
    assert_eq!(set.matches("; SELECT ").count(), 1, "a list of expressions has a bound");
    assert_eq!(sql::set_sequences(&[]), None);
}
