//! Delays on purpose, in builds with the feature `mutants`: a busy machine does the same, but not when one waits for
//! it. The environment variable `GROOVE_LAG` tells in milliseconds by how much sidecars take steps at different times.

use std::time::Duration;

use groove_common::discovery::fresh_dice;

/// How many of a program's questions wait. Few, and long: others have time for whole programs meanwhile.
const LATE: f64 = 0.04;
/// The share of the lag that one of them waits at most.
const LATE_PART: u32 = 20;

/// Before this sidecar takes a step.
pub(crate) async fn step() {
    let lag = lag();
    if !lag.is_zero() {
        tokio::time::sleep(lag.mul_f64(fresh_dice().unit())).await;
    }
}

/// Before a program asks a server.
pub(crate) async fn question() {
    let lag = lag() / LATE_PART;
    if !lag.is_zero() && fresh_dice().unit() < LATE {
        tokio::time::sleep(lag.mul_f64(fresh_dice().unit())).await;
    }
}

fn lag() -> Duration {
    let millis = std::env::var("GROOVE_LAG").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
}
