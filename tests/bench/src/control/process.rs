//! What a process costs, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// Ticks of `/proc/PID/stat` per second (`USER_HZ`).
const TICKS: u64 = 100;

pub struct Memory {
    /// In KiB.
    pub resident: u64,
    pub peak: u64,
}

pub fn memory(pid: Pid) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .with_context(|| format!("/proc/{pid}/status has no {name}"))
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// Processor time, of the program and of the kernel on its account (proc_pid_stat(5), fields 14 and 15).
pub fn cpu(pid: Pid) -> Result<[Duration; 2]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let time = |index: usize| -> Result<Duration> {
        let ticks: u64 = fields.get(index).context("stat is short")?.parse()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS))
    };
    Ok([time(11)?, time(12)?])
}
