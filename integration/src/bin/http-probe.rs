//! The HTTP latency probe of `make bench`, by hand against any server or proxy.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use harness::load::probe::{Options, run};

/// Asks at fixed times on one connection and tells the latency, stalls included.
#[derive(Parser)]
struct Arguments {
    /// Server or proxy, as 127.0.0.1:8080
    address: SocketAddr,
    /// The Host header
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The path to GET
    #[arg(long, default_value = "/")]
    path: String,
    /// Milliseconds between two requests
    #[arg(long, default_value_t = 5)]
    every_ms: u64,
    /// Seconds to go on
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        address: arguments.address,
        host: arguments.host,
        path: arguments.path,
        every: Duration::from_millis(arguments.every_ms),
    };
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let probe = scope.spawn(|| run(&options, &stop));
        std::thread::sleep(Duration::from_secs(arguments.seconds));
        stop.store(true, Ordering::Relaxed);
        probe.join().unwrap_or_else(|_| anyhow::bail!("the probe panicked"))
    })?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
