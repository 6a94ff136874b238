//! The memcached load of `make bench`, by hand against any server or proxy.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use harness::load::memcached::{Options, fill, run};

/// Sends get and set over many connections and tells throughput and latency.
#[derive(Parser)]
struct Arguments {
    /// Server or proxy, as 127.0.0.1:11211
    address: SocketAddr,
    /// Connections, all open from the beginning
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests in flight on each connection, 1 to 64
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Of a hundred requests, how many are sets
    #[arg(long, default_value_t = 10)]
    set_percent: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Keys of a get, 1 to 100
    #[arg(long, default_value_t = 1)]
    keys_per_get: u32,
    /// Of a hundred gets, how many are of one and the same key
    #[arg(long, default_value_t = 0)]
    hot_percent: u32,
    /// Seconds that count, after one that does not
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        address: arguments.address,
        connections: arguments.connections,
        depth: arguments.depth,
        set_percent: arguments.set_percent,
        value_bytes: arguments.value_bytes,
        keys_per_get: arguments.keys_per_get,
        hot_percent: arguments.hot_percent,
        logins: &[],
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs(arguments.seconds),
    };
    fill(&options)?;
    let report = run(&options, &mut || Ok(()))?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
