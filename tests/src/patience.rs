//! Waiting for a change to show, with an end.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a change may take until it shows.
const DEADLINE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// How many times longer than on a real machine everything may take; a virtual machine without KVM sets it.
const FACTOR_VARIABLE: &str = "PORTSIDE_PATIENCE";

/// A time limit on this machine, given that of a real one.
///
/// # Panics
/// Where the variable `PORTSIDE_PATIENCE` is no whole number.
pub fn patient(limit: Duration) -> Duration {
    limit * factor()
}

/// How long a client pauses that asks all the time, given its pause on a real machine. Where everything takes longer, so
/// do its requests: most of the time is left to what happens meanwhile.
pub fn pause(real: Duration) -> Duration {
    real * factor() * factor()
}

/// Whether everything takes much longer here than on a real machine.
pub fn is_slow() -> bool {
    factor() > 1
}

fn factor() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| match std::env::var(FACTOR_VARIABLE) {
        Ok(factor) => factor
            .parse()
            .unwrap_or_else(|error| panic!("{FACTOR_VARIABLE}={factor}: {error}")),
        Err(_) => 1,
    })
}

/// Repeats `attempt` until it succeeds; after 10 s its last error is the error. The limit is that of a real machine.
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
    let deadline = patient(deadline);
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
