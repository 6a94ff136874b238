//! `groove-postgres replicate …`: asks a running proxy about its groups.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use groove_common::admin::Client;
use groove_common::app::{StartError, Table};
use serde_json::{Value, json};

/// Looks after replicated groups.
#[derive(Debug, Clone, Args)]
pub struct Replicate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Show the groups and how their members are
    Status,
    /// Compare all members that are in, table by table; one that differs is let out
    Verify {
        /// The database, as clients name it
        database: String,
    },
    /// Have members that have diverged, or were refused, try to come in again
    Rejoin {
        /// The database, as clients name it
        database: String,
    },
}

impl Replicate {
    /// Runs it against a running proxy.
    ///
    /// # Errors
    ///
    /// When nobody answers, the answer is no, or members differ.
    pub async fn run(self, admin: Client) -> Result<(), StartError> {
        match self.what {
            What::Status => {
                let groups = admin.get("/api/v1/replicate").await?;
                show(&admin, &groups, &statuses(&groups))
            }
            What::Verify { database } => {
                let found = admin.post(&path(&database, "verify"), &json!({})).await?;
                let mut table = Table::new(["member", "equal", "difference"]);
                let mut are_equal = true;
                for finding in found.as_array().into_iter().flatten() {
                    let is_equal = finding.get("is_equal").and_then(Value::as_bool).unwrap_or(false);
                    are_equal &= is_equal;
                    table.row([text(finding, "member"), is_equal.to_string(), text(finding, "difference")]);
                }
                show(&admin, &found, &table.to_string())?;
                if are_equal { Ok(()) } else { Err("members differ".into()) }
            }
            What::Rejoin { database } => {
                let again = admin.post(&path(&database, "rejoin"), &json!({})).await?;
                let names: Vec<&str> =
                    again.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let line = match names.is_empty() {
                    true => "no member is out for good".to_owned(),
                    false => format!("to come in again: {}", names.join(", ")),
                };
                show(&admin, &again, &line)
            }
        }
    }
}

fn show(admin: &Client, answer: &Value, said: &str) -> Result<(), StartError> {
    let text = if admin.json { format!("{answer:#}") } else { said.to_owned() };
    match writeln!(io::stdout(), "{text}") {
        // `status | head`: the reader has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn path(database: &str, verb: &str) -> String {
    let encoded: String = database
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    format!("/api/v1/replicate/{encoded}/{verb}")
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn statuses(groups: &Value) -> String {
    let mut parts = Vec::new();
    for group in groups.as_array().into_iter().flatten() {
        let served =
            if group.get("served").and_then(Value::as_bool) == Some(true) { "served" } else { "not served" };
        let mut head = format!(
            "{}: {served}, {} transactions in the log ({} bytes)",
            text(group, "database"),
            text(group, "log_transactions"),
            text(group, "log_bytes")
        );
        let reason = text(group, "reason");
        if !reason.is_empty() {
            head.push_str(&format!("; {reason}"));
        }
        let mut table = Table::new(["member", "state", "leads", "behind", "reason"]);
        for member in group.get("members").and_then(Value::as_array).into_iter().flatten() {
            table.row([
                text(member, "address"),
                text(member, "state"),
                if text(member, "is_leader") == "true" { "yes".to_owned() } else { String::new() },
                text(member, "behind"),
                text(member, "reason"),
            ]);
        }
        parts.push(format!("{head}\n{table}"));
    }
    match parts.is_empty() {
        true => "no database is replicated".to_owned(),
        false => parts.join("\n\n"),
    }
}
