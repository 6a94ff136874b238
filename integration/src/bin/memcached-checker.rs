//! Whether a cache keeps its word while its servers come, go and die: runs many clients through several sidecars,
//! and checks what they saw. `groove-memcached` is built in the profile of this program.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use harness::checker::{Change, Plan, Protocol};

/// The run went to its end, and what was seen is not as it should be. A run that broke off is told by 1.
const SEEN: u8 = 3;

/// The command line.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "Exit status: 0 if all is as it should be, 3 if not, 1 if the run broke off",
    about = "Checks what many clients see of a cluster of memcached servers behind sidecars"
)]
struct Arguments {
    /// Operations; 20M and 300k are understood.
    #[arg(long, default_value = "300k", value_parser = number)]
    operations: u64,
    /// Clients, one request in flight each.
    #[arg(long, default_value_t = 48)]
    clients: u16,
    /// Keys that are fought over.
    #[arg(long, default_value_t = 400)]
    keys: u32,
    /// Keys of the set whose hit ratio is measured.
    #[arg(long, default_value_t = 5000)]
    steady_keys: u32,
    /// Sidecars.
    #[arg(long, default_value_t = 3)]
    sidecars: usize,
    /// How clients speak.
    #[arg(long, value_enum, default_value_t = Speech::Both)]
    protocol: Speech,
    /// How the servers change.
    #[arg(long, value_enum, default_value_t = How::Resize)]
    change: How,
    /// To how many, one after the other, from three.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 2])]
    sizes: Vec<usize>,
    /// How often they do.
    #[arg(long, default_value_t = 1)]
    cycles: u32,
    /// Keys that are moved in a second.
    #[arg(long, default_value_t = 200)]
    keys_per_second: u32,
    /// Leaves all servers alive.
    #[arg(long)]
    no_kill: bool,
    /// A mistake that the sidecars are to make; it should be caught.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// By how many milliseconds sidecars differ in their steps, where they are built with mistakes.
    #[arg(long, default_value_t = 0)]
    lag_ms: u32,
    /// For the dice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Speech {
    Classic,
    Meta,
    Both,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// Not at all.
    Never,
    /// groove-memcached resize
    Resize,
    /// The files of all sidecars, at once.
    Reload,
    /// One sidecar has another list from the beginning.
    Split,
}

fn number(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['M', 'm']) {
        Some(digits) => (digits, 1_000_000),
        None => match text.strip_suffix(['K', 'k']) {
            Some(digits) => (digits, 1000),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().map(|number| number * factor).map_err(|error| error.to_string())
}

#[allow(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let plan = Plan {
        operations: arguments.operations,
        clients: arguments.clients,
        keys: arguments.keys,
        steady_keys: arguments.steady_keys,
        sidecars: arguments.sidecars,
        protocols: match arguments.protocol {
            Speech::Classic => vec![Protocol::Classic],
            Speech::Meta => vec![Protocol::Meta],
            Speech::Both => vec![Protocol::Classic, Protocol::Meta],
        },
        change: match arguments.change {
            How::Never => Change::Never,
            How::Resize => Change::Resize,
            How::Reload => Change::Reload,
            How::Split => Change::Split,
        },
        sizes: arguments.sizes.clone(),
        cycles: arguments.cycles,
        kill: !arguments.no_kill,
        keys_per_second: arguments.keys_per_second,
        mutant: arguments.mutant.clone(),
        lag_ms: arguments.lag_ms,
        seed: arguments.seed,
    };
    let outcome = plan.run()?;
    println!("{outcome}");
    let is_clean = outcome.is_clean(plan.change);
    let costs_hits = plan.change == Change::Resize && outcome.hits.broken().next().is_some();
    let complaint = match &arguments.mutant {
        Some(mutant) => is_clean.then(|| format!("{mutant} was not caught")),
        None if !is_clean => Some("what was seen cannot be explained".to_owned()),
        None => costs_hits.then(|| "a resize costs too many hits".to_owned()),
    };
    Ok(complaint.map_or(ExitCode::SUCCESS, |complaint| {
        println!("{complaint}");
        ExitCode::from(SEEN)
    }))
}
