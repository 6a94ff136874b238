//! The command line, the same for every proxy but for its own verbs.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, FromArgMatches, Subcommand};
use clap_complete::Shell;
use tokio::runtime::Builder;

use super::proxy::{DemoRow, Proxy, StartError};
use super::table::{self, Table};
use crate::admin;
use crate::config::{self, Report};
use crate::ids::Address;

/// What the program can be told to do.
#[derive(Subcommand)]
enum Verb<Own: Subcommand, Demo: Args> {
    /// Serve, until SIGTERM; SIGHUP or a changed file reloads
    Run {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Tell every error of a configuration; exit code 1 if there is one
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the configuration's JSON Schema, for editors
    Schema,
    /// Show the main job: start, drive with a real client, print what was seen
    Demo(Demo),
    /// Show listeners, clusters, endpoints and pools of a running proxy
    Status,
    /// Print a completion script
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
    #[command(flatten)]
    Own(Own),
}

/// How a running proxy is found.
#[derive(Args)]
struct Target {
    /// The admin server of a running proxy, for the verbs that ask one
    #[arg(long, global = true, value_name = "ADDR")]
    admin: Option<Address>,
    /// Its token
    #[arg(long, global = true, value_name = "TOKEN", env = "GROOVE_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Target {
    fn client<P: Proxy>(self) -> Result<admin::Client, StartError> {
        let address = match self.admin {
            Some(address) => address,
            None => P::ADMIN.parse()?,
        };
        Ok(admin::Client::new(address, self.admin_token, self.json))
    }
}

/// The whole program; a proxy's `main.rs` calls nothing else. Exit codes: 0, 1 failed, 2 usage.
pub fn main<P: Proxy>() -> ExitCode {
    let matches = command::<P>().get_matches();
    let target = Target::from_arg_matches(&matches);
    let verb = Verb::<P::Verb, P::Demo>::from_arg_matches(&matches);
    let (target, verb) = match (target, verb) {
        (Ok(target), Ok(verb)) => (target, verb),
        (Err(error), _) | (_, Err(error)) => error.exit(),
    };
    let done = match verb {
        Verb::Run { config } => return super::run::run::<P>(&config),
        Verb::Check { config } => match config::load::<P::Config>(&config) {
            Ok(_) => print(format_args!("{}: ok", config.display())),
            Err(report) => Err(shown(&report).into()),
        },
        Verb::Schema => print(format_args!("{:#}", config::schema::<P::Config>())),
        Verb::Demo(args) => block_on(demo::<P>(args)),
        Verb::Status => target.client::<P>().and_then(|client| block_on(status(client))),
        Verb::Completions { shell } => completions::<P>(shell),
        Verb::Man => man::<P>(),
        Verb::Own(verb) => target.client::<P>().and_then(|client| block_on(P::verb(verb, client))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error),
    }
}

fn command<P: Proxy>() -> clap::Command {
    let command = clap::Command::new(P::NAME)
        .about(P::ABOUT)
        .version(P::VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true);
    Verb::<P::Verb, P::Demo>::augment_subcommands(Target::augment_args(command))
}

/// Says on standard error what went wrong.
pub(super) fn complain(error: impl Display) -> ExitCode {
    let mut text = error.to_string();
    text.truncate(text.trim_end().len());
    // Nobody may be listening there; the exit code says it too.
    writeln!(io::stderr(), "{text}").unwrap_or_default();
    ExitCode::FAILURE
}

/// A report for standard error: with colours, where a person looks.
pub(super) fn shown(report: &Report) -> String {
    if io::stderr().is_terminal() { report.styled() } else { report.to_string() }
}

/// Says on standard output what was asked for.
pub(super) fn print(text: impl Display) -> Result<(), StartError> {
    match writeln!(io::stdout(), "{text}") {
        // `status | head`: the reader has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn block_on(work: impl Future<Output = Result<(), StartError>>) -> Result<(), StartError> {
    Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn status(client: admin::Client) -> Result<(), StartError> {
    let status = client.get("/api/v1/status").await?;
    if client.json { print(format_args!("{status:#}")) } else { print(table::of_status(&status)) }
}

async fn demo<P: Proxy>(args: P::Demo) -> Result<(), StartError> {
    let rows = P::demo(args).await?;
    let mut table = Table::new(["", "what", "seen"]);
    for DemoRow { what, seen, good } in &rows {
        table.row([if *good { "ok" } else { "FAILED" }, what, seen]);
    }
    print(table)?;
    match rows.iter().filter(|row| !row.good).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} failed", rows.len()).into()),
    }
}

/// By way of a buffer: `generate` panics when it cannot write, and a reader may have gone.
fn completions<P: Proxy>(shell: Shell) -> Result<(), StartError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command::<P>(), P::NAME, &mut script);
    print(String::from_utf8(script)?.trim_end())
}

fn man<P: Proxy>() -> Result<(), StartError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command::<P>()).render(&mut page)?;
    print(String::from_utf8(page)?.trim_end())
}
