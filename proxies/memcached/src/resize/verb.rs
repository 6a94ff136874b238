//! `groove-memcached resize …`: begins a resize and shows how it goes, on a terminal with a bar, elsewhere line by
//! line.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use groove_common::admin::Client;
use groove_common::app::StartError;
use groove_common::config::{self, Endpoint, Size};
use serde_json::json;
use tokio::time::sleep;

use super::api::{StandbyPart, Standing, Status};
use super::view::Phase;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A line elsewhere than on a terminal, if nothing but a number has changed.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// A proxy that does not tell how it goes for so long is given up.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// The bar's width, in characters.
const BAR_LEN: usize = 30;

/// Changes a cluster's servers while clients go on.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Resize {
    #[command(subcommand)]
    action: Option<Action>,
    /// The new servers: a YAML file with a list of endpoints, in their order
    #[arg(long, value_name = "FILE", required = true)]
    to: Option<PathBuf>,
    /// At once, without moving keys: those whose server changes are lost
    #[arg(long)]
    immediate: bool,
    /// Only begin, do not wait for the end
    #[arg(long)]
    detach: bool,
    /// The cluster; may be left out if there is only one
    #[arg(long, value_name = "NAME", global = true)]
    cluster: Option<String>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Tell how it stands
    Status,
    /// Stop it where it is
    Pause,
    /// Let it go on
    Resume,
    /// Go back to the old servers
    Abort,
}

impl Resize {
    /// Does what is asked.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the answer is no, or the resize was undone.
    pub async fn run(self, admin: Client) -> Result<(), StartError> {
        let Self { action, to, immediate, detach, cluster } = self;
        let ask = |what: &'static str| {
            let (admin, cluster) = (admin.clone(), cluster.clone());
            async move {
                let path = format!("/api/v1/resize/{what}");
                let status: Status =
                    serde_json::from_value(admin.post(&path, &json!({ "cluster": cluster })).await?)?;
                show(&status, admin.json)
            }
        };
        match (action, to) {
            (Some(Action::Status), _) => {
                for status in looked(&admin, cluster.as_deref()).await? {
                    show(&status, admin.json)?;
                }
                Ok(())
            }
            (Some(Action::Pause), _) => ask("pause").await,
            (Some(Action::Resume), _) => ask("resume").await,
            (Some(Action::Abort), _) => ask("abort").await,
            (None, Some(file)) => {
                let list: Vec<Endpoint> = config::read(&file).map_err(|report| report.to_string())?;
                let wish = json!({ "cluster": cluster, "to": list, "immediate": immediate });
                let begun: Status = serde_json::from_value(admin.post("/api/v1/resize", &wish).await?)?;
                if detach { show(&begun, admin.json) } else { follow(&admin, &begun.cluster, &list).await }
            }
            // The command line does not let it come to this.
            (None, None) => Err("write `--to FILE`".into()),
        }
    }
}

/// How the resizes of one cluster or of all stand.
async fn looked(admin: &Client, cluster: Option<&str>) -> Result<Vec<Status>, StartError> {
    let all: Vec<Status> = serde_json::from_value(admin.get("/api/v1/resize").await?)?;
    let found: Vec<_> =
        all.into_iter().filter(|status| cluster.is_none_or(|name| status.cluster == name)).collect();
    match found.is_empty() {
        true => Err("there is no such cluster with a `resize` section and a `state` folder".into()),
        false => Ok(found),
    }
}

/// Shows it until its end.
async fn follow(admin: &Client, cluster: &str, to: &[Endpoint]) -> Result<(), StartError> {
    let mut screen = Screen { bar: io::stdout().is_terminal() && !admin.json, last: None };
    let mut heard = Instant::now();
    loop {
        let looked = looked(admin, Some(cluster)).await;
        if looked.is_err() && heard.elapsed() < SILENT_MAX {
            // The resize goes on whether or not it is watched.
            sleep(LOOK_EVERY).await;
            continue;
        }
        heard = Instant::now();
        let status = looked?.into_iter().next().ok_or("the cluster is gone")?;
        screen.show(&status, admin.json)?;
        if status.is_settled() {
            screen.end()?;
            return match status.listed() == to {
                true => Ok(()),
                false => Err("the resize was undone".into()),
            };
        }
        sleep(LOOK_EVERY).await;
    }
}

struct Screen {
    bar: bool,
    /// What was shown, and when.
    last: Option<(String, Instant)>,
}

impl Screen {
    fn show(&mut self, status: &Status, json: bool) -> io::Result<()> {
        let line = line(status);
        let mut out = io::stdout();
        if self.bar {
            write!(out, "\r\x1b[K{}", line.bar())?;
            return out.flush();
        }
        let is_news =
            self.last.as_ref().is_none_or(|(last, at)| *last != line.head || at.elapsed() >= LINE_EVERY);
        if is_news {
            match json {
                true => writeln!(out, "{}", serde_json::to_string(status).unwrap_or_default())?,
                false => writeln!(out, "{}", line.text())?,
            }
            self.last = Some((line.head, Instant::now()));
        }
        Ok(())
    }

    fn end(&self) -> io::Result<()> {
        match self.bar {
            true => writeln!(io::stdout()),
            false => Ok(()),
        }
    }
}

/// A status in one line.
struct Line {
    /// What changes seldom.
    head: String,
    /// What changes all the time.
    numbers: String,
    /// From 0 to 1.
    done: f64,
}

impl Line {
    fn text(&self) -> String {
        let Self { head, numbers, .. } = self;
        if numbers.is_empty() { head.clone() } else { format!("{head}; {numbers}") }
    }

    fn bar(&self) -> String {
        // Between 0 and the bar's width.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let full = ((self.done * BAR_LEN as f64) as usize).min(BAR_LEN);
        format!("[{}{}] {}", "#".repeat(full), "-".repeat(BAR_LEN - full), self.text())
    }
}

fn line(status: &Status) -> Line {
    let phase = match (status.phase, status.aborting) {
        (Phase::Plain, _) if status.next.is_some() => "about to begin",
        (Phase::Plain, _) => "no resize",
        (Phase::B | Phase::C, false) => "getting ready",
        (Phase::E, false) => "moving keys",
        (Phase::F, _) => "the new servers have the keys, placeholders expire",
        (Phase::B | Phase::C | Phase::E, true) => "going back to the old servers",
    };
    let behind: Vec<_> = status.sidecars.iter().filter(|it| it.behind).map(|it| it.name.as_str()).collect();
    let mut head =
        format!("{}: {phase} (phase {:?}, {} sidecars", status.cluster, status.phase, status.sidecars.len());
    if !behind.is_empty() {
        head.push_str(&format!(", {} behind", behind.join(", ")));
    }
    head.push(')');
    if status.paused {
        head.push_str(", paused");
    } else if let Some(reason) =
        status.waits_for.as_ref().filter(|_| !behind.is_empty() || status.phase != Phase::F)
    {
        head.push_str(&format!(", {reason}"));
    }
    let mut numbers = String::new();
    let mut done = match status.phase {
        Phase::Plain => 1.0,
        Phase::B | Phase::C => 0.0,
        Phase::E => 0.5,
        Phase::F => 1.0,
    };
    if let Some(total) = status.keys_total {
        numbers =
            format!("{} of about {total} keys, {:.0} a second", status.keys_moved, status.keys_per_second);
        if let Some(left) = status.seconds_left {
            numbers.push_str(&format!(", about {left}s left"));
        }
        if status.phase == Phase::E {
            done = status.keys_moved as f64 / total.max(1) as f64;
        }
    }
    Line { head, numbers, done }
}

/// A status in full.
fn show(status: &Status, json: bool) -> Result<(), StartError> {
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(status)?)?;
        return Ok(());
    }
    let list = |list: &[Endpoint]| {
        list.iter().map(|server| server.address.to_string()).collect::<Vec<_>>().join(" ")
    };
    writeln!(out, "{}", line(status).text())?;
    writeln!(out, "  servers  {}", list(&status.servers))?;
    for (name, servers) in [("to", &status.to), ("then", &status.next)] {
        if let Some(servers) = servers {
            writeln!(out, "  {name:<7}  {}", list(servers))?;
        }
    }
    if let Some(standing) = &status.standby {
        show_standing(&mut out, standing)?;
    }
    for (server, gone) in &status.gone {
        writeln!(out, "  given up {server} ({gone:?})")?;
    }
    for sidecar in &status.sidecars {
        let behind = if sidecar.behind { ", BEHIND" } else { "" };
        let leads = if status.leader.as_ref() == Some(&sidecar.name) { ", drives" } else { "" };
        writeln!(
            out,
            "  sidecar  {} (step {} of {}{behind}{leads})",
            sidecar.name, sidecar.acknowledged, status.step
        )?;
    }
    Ok(())
}

/// The standby servers, and what they are there for.
fn show_standing(out: &mut impl Write, standing: &Standing) -> io::Result<()> {
    let full = standing.bytes_stored.saturating_mul(100).checked_div(standing.bytes_max).unwrap_or_default();
    let rate = standing.evictions_per_second;
    write!(out, "  memory   {full} % of {} used, {rate:.1} evictions a second", Size(standing.bytes_max))?;
    match &standing.note {
        Some(note) => writeln!(out, ", {note}")?,
        None => writeln!(out)?,
    }
    for server in &standing.servers {
        let part = match server.part {
            StandbyPart::Waiting => "waits",
            StandbyPart::Joining => "joins",
            StandbyPart::Joined => "has joined",
            StandbyPart::Leaving => "leaves",
        };
        let why = server.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let silent = if server.silent { ", DOES NOT ANSWER" } else { "" };
        writeln!(out, "  standby  {} {part}{silent}{why}", server.address)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: Phase) -> Status {
        let text = json!({
            "cluster": "main", "phase": phase, "aborting": false, "paused": false, "servers": ["10.0.0.1:1"],
            "to": ["10.0.0.1:2"], "next": null, "waits_for": null, "keys_moved": 30, "keys_total": 60,
            "keys_per_second": 10.0, "bytes_moved": 0, "tries_failed": 0, "keys_refused": 0, "seconds_left": 3, "gone": {},
            "away": [], "step": 4, "leader": null, "asked": "a",
            "sidecars": [{"name": "a", "acknowledged": 3, "behind": true, "host": "h", "pid": 1}],
            "standby": null,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_line_tells_phase_progress_and_who_is_behind() {
        let line = line(&status(Phase::E));
        assert_eq!(
            line.bar(),
            "[###############---------------] main: moving keys (phase E, 1 sidecars, a behind); \
             30 of about 60 keys, 10 a second, about 3s left"
        );
        assert!(!status(Phase::Plain).is_settled());
    }

    #[test]
    fn standby_servers_are_told_with_what_they_do_and_why() {
        let standing: Standing = serde_json::from_value(json!({
            "servers": [
                {"address": "10.0.0.1:1", "part": "joined", "since": 1, "why": "it was full", "silent": false},
                {"address": "10.0.0.1:2", "part": "waiting", "since": null, "why": null, "silent": true},
            ],
            "evictions_per_second": 2.5, "bytes_stored": 30 << 20, "bytes_max": 64 << 20,
            "note": "evicting for 5s of 1m",
        }))
        .unwrap();
        let mut out = Vec::new();
        show_standing(&mut out, &standing).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  memory   46 % of 64MiB used, 2.5 evictions a second, evicting for 5s of 1m\n  \
             standby  10.0.0.1:1 has joined: it was full\n  \
             standby  10.0.0.1:2 waits, DOES NOT ANSWER\n"
        );
        let status = Status { standby: Some(standing), ..status(Phase::Plain) };
        assert_eq!(status.listed(), [], "its one server is there as a standby server");
    }
}
