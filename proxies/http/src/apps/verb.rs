//! `groove-http apps …`: looks at the apps of a running proxy and changes them.

use clap::{Subcommand, ValueEnum};
use groove_common::admin::Client;
use groove_common::app::{StartError, Table};
use groove_common::ids::Address;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The longest text of an app that is read.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What is to be done with the apps.
#[derive(Debug, Clone, Subcommand)]
pub enum Apps {
    /// Set an app: from now on it is what the file says, whether or not there was one of that name
    Set {
        /// The app
        name: String,
        /// YAML or JSON of that one app; `-` is standard input
        file: PathBuf,
    },
    /// Take an app back that was set; one of the configuration with its name serves again
    Unset {
        /// The app
        name: String,
    },
    /// List the apps
    List,
    /// Show one app
    Get {
        /// The app
        name: String,
    },
    /// Answer 503 to all its clients, or no longer
    Maintenance {
        /// The app
        name: String,
        /// Whether it is in maintenance
        state: Switch,
    },
    /// Let no new exchange begin; those that have begun go on
    Drain {
        /// The app
        name: String,
        /// One of its endpoints; all of the app if left out
        endpoint: Option<Address>,
        /// Let them begin again
        #[arg(long)]
        undo: bool,
    },
    /// Make all its connections new: its clients', each after its next reply, and those to its servers
    Restart {
        /// The app
        name: String,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// From now on.
    On,
    /// No longer.
    Off,
}

impl Apps {
    /// Does what is asked.
    pub async fn run(self, admin: Client) -> Result<(), StartError> {
        let json = admin.json;
        let (answer, said) = match self {
            Self::Set { name, file } => {
                let text = read(&file)?;
                let shown = if file == Path::new("-") { "stdin".into() } else { file.to_string_lossy() };
                let query = format!("?file={}", encoded(&shown));
                (admin.put(&path(&name, &query), text).await?, format!("{name} is set"))
            }
            Self::Unset { name } => {
                let answer = admin.delete(&path(&name, "")).await?;
                let serves_file = answer.get("serves_file").and_then(Value::as_bool).unwrap_or_default();
                let file = if serves_file { ": the configuration's serves again" } else { "" };
                (answer, format!("{name} is unset{file}"))
            }
            Self::List => {
                let answer = admin.get("/api/v1/apps").await?;
                let said = table(&answer);
                (answer, said)
            }
            Self::Get { name } => {
                let answer = admin.get(&path(&name, "")).await?;
                let said = format!("{answer:#}");
                (answer, said)
            }
            Self::Maintenance { name, state } => {
                let on = state == Switch::On;
                let answer = admin.post(&path(&name, "/maintenance"), &json!({ "on": on })).await?;
                (answer, format!("{name} is {} maintenance", if on { "in" } else { "out of" }))
            }
            Self::Drain { name, endpoint, undo } => {
                let what = endpoint.as_ref().map_or_else(|| name.clone(), |it| format!("{it} of {name}"));
                let body = json!({ "endpoint": endpoint, "undo": undo });
                let answer = admin.post(&path(&name, "/drain"), &body).await?;
                (answer, format!("{what} {}", if undo { "takes exchanges again" } else { "drains" }))
            }
            Self::Restart { name } => (
                admin.post(&path(&name, "/restart"), &json!({})).await?,
                format!("{name} makes its connections new"),
            ),
        };
        let text = if json { format!("{answer:#}") } else { said };
        match writeln!(io::stdout(), "{text}") {
            // `list | head`: the reader has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        }
    }
}

fn read(file: &Path) -> Result<String, StartError> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().take(TEXT_BYTES_MAX + 1).read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|it| it.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    let read = read.map_err(|error| format!("{}: {error}", file.display()))?;
    if read as u64 > TEXT_BYTES_MAX {
        return Err(format!("{}: it is larger than {} MiB", file.display(), TEXT_BYTES_MAX >> 20).into());
    }
    Ok(text)
}

/// The path of an app.
fn path(name: &str, below: &str) -> String {
    format!("/api/v1/apps/{}{below}", encoded(name))
}

/// As it stands in a path or a query.
fn encoded(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(["name", "hosts", "state", "from", "in_flight", "requests", "failures"]);
    for app in answer.get("apps").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| match app.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            other => other.map(Value::to_string).unwrap_or_default(),
        };
        table.row(["name", "hosts", "state", "from", "in_flight", "requests", "failures"].map(text));
    }
    table.to_string()
}
