//! CPU time of the whole machine: what forwarding costs is spent in softirqs, on nobody's account.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks of `/proc/stat` per second (`USER_HZ`, 100 on every architecture that matters here).
const TICKS: u32 = 100;

/// Time that all CPUs together were not idle since boot.
pub fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u32> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let busy: u32 = [0, 1, 2, 5, 6]
        .into_iter()
        .filter_map(|n| fields.get(n))
        .sum();
    Ok(Duration::from_secs(1) * busy / TICKS)
}
