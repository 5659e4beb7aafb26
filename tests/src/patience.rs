//! Waiting for a change to show, with an end.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a change may take until it shows.
pub const DEADLINE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it succeeds; after [`DEADLINE`] its last error is the error.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_within(DEADLINE, what, attempt)
}

/// The same with another end.
pub fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > deadline => {
                return Err(anyhow!("{what}: not within {deadline:?}: {error:#}"));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
