//! Waiting for a change to show, with an end.
//!
//! Limits are those of a real machine with nothing else to do. They grow where everything takes longer: in a machine that is emulated,
//! and beside other work, by as much as processes wait for a processor. So a row fails for what it asks about, not for
//! what else the machine does; a limit that was passed on an idle machine is one.

use std::fs;
use std::num::NonZero;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a change may take until it shows.
const DEADLINE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// How many times longer than on a real machine everything may take; a virtual machine without KVM sets it.
const FACTOR_VARIABLE: &str = vm_protocol::variable::PATIENCE;

/// Beyond this, a row would never end that should fail.
const MOST_BUSY: u32 = 16;

/// A time limit on this machine as it is now, given that of a real one.
///
/// # Panics
/// Where the variable `PORTSIDE_PATIENCE` is no whole number.
pub fn patient(limit: Duration) -> Duration {
    limit * factor().max(busy())
}

/// How many processes there are for each processor: the larger one of now and of the last minute.
fn busy() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    // In a container without /proc nothing is known, and limits are as they are.
    let load = fs::read_to_string("/proc/loadavg").ok();
    load.and_then(|load| for_each(&load, processors))
        .unwrap_or(1)
}

/// The same of what /proc/loadavg says: `19.25 18.47 16.75 22/812 4711`.
fn for_each(load: &str, processors: usize) -> Option<u32> {
    let mut words = load.split_whitespace();
    let minute: f64 = words.next()?.parse().ok()?;
    let now: f64 = words.nth(2)?.split('/').next()?.parse().ok()?;
    let each = minute.max(now) / processors as f64;
    Some((each.ceil() as u32).clamp(1, MOST_BUSY))
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

/// `reason`, where a row takes so long here that it is left out of a run that does not name it.
pub fn unless_by_name(reason: &'static str) -> Option<&'static str> {
    let by_name = std::env::var_os(vm_protocol::variable::BY_NAME).is_some();
    (is_slow() && !by_name).then_some(reason)
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
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => {
                // Other work may have begun meanwhile.
                let deadline = patient(deadline);
                if start.elapsed() > deadline {
                    return Err(anyhow!("{what}: not within {deadline:?}: {error:#}"));
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_processes_that_want_a_processor() {
        let each = |load| for_each(load, 2);
        assert_eq!(each("0.10 0.20 0.30 1/100 4711\n"), Some(1));
        assert_eq!(each("2.00 9.00 9.00 3/100 4711"), Some(2));
        assert_eq!(each("20.00 1.00 1.00 1/100 4711"), Some(10));
        assert_eq!(each("1.00 1.00 1.00 9/100 4711"), Some(5));
        assert_eq!(each("400.00 1.00 1.00 1/100 4711"), Some(MOST_BUSY));
        assert_eq!(each("what else"), None);
    }
}
