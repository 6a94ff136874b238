//! Delays on purpose, in builds with the feature `mutants`: a busy machine does the same, but not when one waits for
//! it. The environment variable `GROOVE_LAG` tells by how many milliseconds sidecars take steps at different times;
//! the steps of programs are apart by as many hundredths of it.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::Duration;

use groove_common::balance::Dice;
use groove_common::discovery::fresh_dice;

static LAG: LazyLock<Duration> = LazyLock::new(|| {
    let millis = std::env::var("GROOVE_LAG").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
});

thread_local! {
    static DICE: RefCell<Dice> = RefCell::new(fresh_dice());
}

/// Before this sidecar takes a step.
pub(crate) async fn step() {
    wait(*LAG).await;
}

/// Before a program asks a server.
pub(crate) async fn question() {
    wait(*LAG / 100).await;
}

async fn wait(most: Duration) {
    let share = DICE.with_borrow_mut(Dice::unit);
    // Half of them do not wait at all.
    if !most.is_zero() && share < 0.5 {
        tokio::time::sleep(most.mul_f64(share * 2.0)).await;
    }
}
