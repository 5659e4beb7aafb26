//! Measures how many jiffies the kernel counts in a second (`CONFIG_HZ`, which it does not export).
//!
//! The program `clock` returns the low 32 bits of jiffies: two readings, some time apart, tell the four values that
//! kernels are built with from one another.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use aya::Ebpf;
use proxy_common::abi::Jiffies;

use super::program::{self, Run};

/// The values of `CONFIG_HZ`.
const CHOICES: [u32; 4] = [100, 250, 300, 1000];
/// 250 and 300 differ by five jiffies in this time.
const APART: Duration = Duration::from_millis(100);

/// An Ethernet frame that is long enough to be run.
const FRAME: [u8; 64] = [0; 64];

/// Measures it.
pub fn jiffies_per_second(ebpf: &Ebpf) -> Result<u32> {
    let read = || now(ebpf);
    let began = Instant::now();
    let first = read()?;
    thread::sleep(APART);
    let jiffies = read()?.since(first);
    nearest(jiffies, began.elapsed())
}

/// What time it is for the programs.
pub fn now(ebpf: &Ebpf) -> Result<Jiffies> {
    program::run(ebpf, program::CLOCK, Run::new(&FRAME)).map(|ran| Jiffies(ran.action))
}

fn nearest(jiffies: u32, elapsed: Duration) -> Result<u32> {
    ensure!(
        jiffies > 0,
        "the kernel's jiffies stand still: program {} returned one value twice, {elapsed:?} apart",
        program::CLOCK
    );
    let measured = f64::from(jiffies) / elapsed.as_secs_f64();
    let off = |hz: u32| (f64::from(hz) / measured).ln().abs();
    let mut best = CHOICES[0];
    for hz in CHOICES {
        if off(hz) < off(best) {
            best = hz;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_jiffy_more_or_less_does_not_change_the_answer() {
        for hz in CHOICES {
            let exact = hz / 10;
            for jiffies in [exact - 1, exact, exact + 1] {
                assert_eq!(nearest(jiffies, APART).unwrap(), hz, "{jiffies} jiffies");
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_is_an_error() {
        assert!(nearest(0, APART).is_err());
    }
}
