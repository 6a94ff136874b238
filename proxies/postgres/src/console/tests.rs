use std::time::Duration;

use super::command::{Command, Show};

fn read(text: &str) -> Command {
    Command::read(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

fn refused(text: &str) -> &'static str {
    Command::read(text).unwrap_err().code
}

#[test]
fn commands_are_read_in_any_case_and_with_or_without_a_semicolon() {
    for text in ["SHOW POOLS", "show pools;", "  Show\tPools ; ", "sHoW\nPOOLS"] {
        assert_eq!(read(text), Command::Show(Show::Pools), "{text}");
    }
    assert_eq!(read("RECONNECT"), Command::Reconnect(None));
    assert_eq!(read("reconnect Shop;"), Command::Reconnect(Some("Shop".to_owned())));
    assert_eq!(read("kill \"my \"\"db\"\"\""), Command::Kill("my \"db\"".to_owned()));
    assert_eq!(read("set anything = 'at all; really'"), Command::Set);
    assert_eq!((read(""), read(" ; ")), (Command::Empty, Command::Empty));
}

#[test]
fn a_pause_may_name_a_database_and_a_time() {
    let pause = |database: Option<&str>, seconds: Option<u64>| Command::Pause {
        database: database.map(str::to_owned),
        timeout: seconds.map(Duration::from_secs),
    };
    assert_eq!(read("PAUSE"), pause(None, None));
    assert_eq!(read("pause shop"), pause(Some("shop"), None));
    assert_eq!(read("PAUSE shop TIMEOUT '10s';"), pause(Some("shop"), Some(10)));
    assert_eq!(read("pause timeout 1m"), pause(None, Some(60)));
    assert_eq!(read("pause \"timeout\""), pause(Some("timeout"), None));
}

#[test]
fn what_is_no_command_is_a_syntax_error() {
    for text in [
        "SELECT 1",
        "SHOW",
        "SHOW FDS",
        "SHOW POOLS x",
        "SHOW POOLS; SHOW LISTS",
        "KILL",
        "DISABLE",
        "ENABLE",
        "RELOAD now",
        "RESUME a b",
        "PAUSE shop for",
        "PAUSE shop TIMEOUT",
        "PAUSE shop TIMEOUT '0s'",
        "PAUSE shop TIMEOUT 'soon'",
        "KILL \"shop",
        "\"SHOW\" POOLS",
        "SHOW 'POOLS'",
    ] {
        assert_eq!(refused(text), "42601", "{text}");
    }
}
