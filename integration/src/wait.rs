//! Waiting for what happens, never for a span of time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take before a test gives up on it. Generous: it only costs when something failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that has no event to wait for, such as another program's listener.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until `seen` gives a value, for state of another program that can only be polled.
///
/// # Errors
/// When [`PATIENCE`] runs out; `what` is named in the message.
pub fn eventually<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = seen() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("{what}: not seen within {PATIENCE:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
