//! What an operator asks for.

use std::time::Duration;

use super::Refusal;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing at all.
    Empty,
    Show(Show),
    Pause {
        /// All if left out.
        database: Option<String>,
        /// The configured one if left out.
        timeout: Option<Duration>,
    },
    Resume(Option<String>),
    Disable(String),
    Enable(String),
    Kill(String),
    Reconnect(Option<String>),
    Reload,
    Shutdown,
    Suspend,
    Set,
}

/// What there is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Help,
    Version,
    Pools,
    Clients,
    Servers,
    Databases,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Lists,
    Config,
    Mem,
    Users,
    State,
}

impl Command {
    /// What PgBouncer says after it.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Command::Empty => "",
            Command::Show(_) => "SHOW",
            Command::Pause { .. } => "PAUSE",
            Command::Resume(_) => "RESUME",
            Command::Disable(_) => "DISABLE",
            Command::Enable(_) => "ENABLE",
            Command::Kill(_) => "KILL",
            Command::Reconnect(_) => "RECONNECT",
            Command::Reload => "RELOAD",
            Command::Shutdown => "SHUTDOWN",
            Command::Suspend => "SUSPEND",
            Command::Set => "SET",
        }
    }

    /// Reads one command; a `;` may follow it.
    pub(super) fn read(text: &str) -> Result<Command, Refusal> {
        let invalid =
            || Refusal::new("42601", format!("invalid command '{}'", text.trim())).hint("SHOW HELP");
        let words = words(text).ok_or_else(invalid)?;
        let mut words = words.iter();
        let Some(verb) = words.next() else { return Ok(Command::Empty) };
        let verb = verb.keyword().ok_or_else(invalid)?;
        if verb == "SET" {
            return Ok(Command::Set);
        }
        let (first, rest) = (words.next(), words.as_slice());
        if verb == "PAUSE" {
            return pause(first, rest).ok_or_else(invalid);
        }
        if !rest.is_empty() {
            return Err(invalid());
        }
        let needed = || {
            let name = first.map(|word| word.text.clone());
            name.ok_or_else(|| Refusal::new("42601", "a database is required").hint("SHOW HELP"))
        };
        let optional = || first.map(|word| word.text.clone());
        match verb.as_str() {
            "SHOW" => first.and_then(show).map(Command::Show).ok_or_else(invalid),
            "RESUME" => Ok(Command::Resume(optional())),
            "DISABLE" => needed().map(Command::Disable),
            "ENABLE" => needed().map(Command::Enable),
            "KILL" => needed().map(Command::Kill),
            "RECONNECT" => Ok(Command::Reconnect(optional())),
            "RELOAD" if first.is_none() => Ok(Command::Reload),
            "SHUTDOWN" if first.is_none() => Ok(Command::Shutdown),
            "SUSPEND" if first.is_none() => Ok(Command::Suspend),
            _ => Err(invalid()),
        }
    }
}

/// `PAUSE`, `PAUSE db`, `PAUSE TIMEOUT '10s'`, `PAUSE db TIMEOUT '10s'`. A database called timeout is quoted.
fn pause(first: Option<&Word>, rest: &[Word]) -> Option<Command> {
    let (database, rest) = match first {
        Some(word) if word.keyword().as_deref() == Some("TIMEOUT") => return pause_for(None, rest),
        Some(word) => (Some(word.text.clone()), rest),
        None => (None, rest),
    };
    match rest.split_first() {
        None => Some(Command::Pause { database, timeout: None }),
        Some((word, rest)) if word.keyword().as_deref() == Some("TIMEOUT") => pause_for(database, rest),
        Some(_) => None,
    }
}

fn pause_for(database: Option<String>, rest: &[Word]) -> Option<Command> {
    let [time] = rest else { return None };
    let timeout = humantime::parse_duration(&time.text).ok().filter(|timeout| !timeout.is_zero())?;
    Some(Command::Pause { database, timeout: Some(timeout) })
}

fn show(word: &Word) -> Option<Show> {
    match word.keyword()?.as_str() {
        "HELP" => Some(Show::Help),
        "VERSION" => Some(Show::Version),
        "POOLS" => Some(Show::Pools),
        "CLIENTS" => Some(Show::Clients),
        "SERVERS" => Some(Show::Servers),
        "DATABASES" => Some(Show::Databases),
        "STATS" => Some(Show::Stats),
        "STATS_TOTALS" => Some(Show::StatsTotals),
        "STATS_AVERAGES" => Some(Show::StatsAverages),
        "TOTALS" => Some(Show::Totals),
        "LISTS" => Some(Show::Lists),
        "CONFIG" => Some(Show::Config),
        "MEM" => Some(Show::Mem),
        "USERS" => Some(Show::Users),
        "STATE" => Some(Show::State),
        _ => None,
    }
}

/// A word, or what stands in quotes.
struct Word {
    text: String,
    is_quoted: bool,
}

impl Word {
    /// In capitals; what is quoted is a name or a value.
    fn keyword(&self) -> Option<String> {
        (!self.is_quoted).then(|| self.text.to_ascii_uppercase())
    }
}

/// The words of one command; `None` if a quote does not end, or more than a `;` follows.
fn words(text: &str) -> Option<Vec<Word>> {
    let text = text.trim();
    let mut rest = text.strip_suffix(';').unwrap_or(text).trim();
    let mut words = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (text, is_quoted, tail) = match first {
            '"' | '\'' => {
                let (quoted, tail) = quoted(rest, first)?;
                (quoted, true, tail)
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'');
                let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
                (word.to_owned(), false, tail)
            }
        };
        if !is_quoted && text.contains(';') {
            return None;
        }
        words.push(Word { text, is_quoted });
        rest = tail.trim_start();
    }
    Some(words)
}

/// What stands in quotes at the front, a doubled quote being one, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let (part, tail) = rest.split_once(quote)?;
        value.push_str(part);
        match tail.strip_prefix(quote) {
            Some(tail) => {
                value.push(quote);
                rest = tail;
            }
            None => return Some((value, tail)),
        }
    }
}
