//! `make bench`: the three proxies beside what Debian packages.

use std::io::Write;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use harness::bench::{Settings, compare, write};
use harness::{Kind, paths};

/// Measures ours and the peers in turns and writes tables, JSON and a plot under target/bench/.
#[derive(Parser)]
struct Arguments {
    /// One protocol alone
    #[arg(long)]
    only: Option<Protocol>,
    /// Only scenarios whose name has this in it, such as "1 in flight"
    #[arg(long)]
    scenario: Option<String>,
    /// How often each candidate is measured in each scenario
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Workers of ours, and processes or threads of peers that can have several
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Idle connections to weigh; 0 leaves it out
    #[arg(long, default_value_t = 2000)]
    idle_connections: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Memcached,
    Postgres,
    Http,
}

impl From<Protocol> for Kind {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Memcached => Self::Memcached,
            Protocol::Postgres => Self::Postgres,
            Protocol::Http => Self::Http,
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        workers: arguments.workers,
        idle_connections: arguments.idle_connections,
        scenario: arguments.scenario,
    };
    let kinds = arguments.only.map_or_else(|| Kind::ALL.to_vec(), |only| vec![only.into()]);
    let mut comparisons = Vec::new();
    for kind in kinds {
        comparisons.push(compare(kind, &settings, &mut |said| eprintln!("{said}"))?);
    }
    let folder = paths::target()?.join("bench");
    let markdown = write(&folder, &settings, &comparisons)?;
    let mut out = std::io::stdout();
    writeln!(out, "{markdown}\nalso in {}: bench.md, bench.json, bench.svg", folder.display())?;
    Ok(())
}
