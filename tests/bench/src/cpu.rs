//! One CPU, on which all that is measured happens, and the time that was spent there on this program's account.
//!
//! What forwarding costs is spent in softirqs, on the account of whichever thread they interrupt: the sender's, since it
//! is the sender's own system call that raises them, or else that of `ksoftirqd`. So other work on the machine does
//! not count. Where the kernel keeps the time of interrupts apart (`CONFIG_IRQ_TIME_ACCOUNTING`), that is added.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc::pid_t;
use nix::time::{ClockId, clock_gettime};

use testbed::one_cpu::OneCpu;

/// Ticks of `/proc/stat` per second (`USER_HZ`, 100 on every architecture that matters here).
const TICKS: u32 = 100;

/// A thread that stays on one CPU, until this is dropped, and what is spent there.
pub struct Pinned {
    on: OneCpu,
    ksoftirqd: pid_t,
    interrupts_apart: bool,
}

impl Pinned {
    pub fn pin() -> Result<Self> {
        let on = OneCpu::stay()?;
        Ok(Self {
            ksoftirqd: thread_named(&format!("ksoftirqd/{}", on.cpu))?,
            interrupts_apart: interrupts_are_apart()?,
            on,
        })
    }

    /// CPU time on the account of this program and of softirqs, since a moment in the past.
    pub fn spent(&self) -> Result<Duration> {
        let ours = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
        let softirqs = run_time(self.ksoftirqd)?;
        let interrupts = if self.interrupts_apart {
            interrupt_time(self.on.cpu)?
        } else {
            Duration::ZERO
        };
        Ok(ours + softirqs + interrupts)
    }
}

fn thread_named(name: &str) -> Result<pid_t> {
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|pid| pid.to_str()?.parse().ok()) else {
            continue;
        };
        // It may have ended since.
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no thread {name} in /proc: is this a container with a PID namespace of its own?")
}

/// The first figure of `/proc/PID/schedstat`: time on a CPU, in nanoseconds.
fn run_time(pid: pid_t) -> Result<Duration> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let time = text
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    Ok(Duration::from_nanos(
        time.with_context(|| format!("{path} is empty"))?,
    ))
}

/// Does a thread's time leave out the interrupts that held it up?
fn interrupts_are_apart() -> Result<bool> {
    let release = nix::sys::utsname::uname()?;
    let release = release.release().to_string_lossy().into_owned();
    let config = format!("/boot/config-{release}");
    let packed = "/proc/config.gz";
    let text = match fs::read_to_string(&config) {
        Ok(text) => text,
        Err(_) => {
            let output = std::process::Command::new("zcat").arg(packed).output()?;
            ensure!(
                output.status.success(),
                "neither {config} nor {packed} tells how this kernel counts CPU time"
            );
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    Ok(text
        .lines()
        .any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y"))
}

/// Time of the CPU in interrupts and softirqs.
fn interrupt_time(cpu: usize) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let name = format!("cpu{cpu}");
    let line = stat
        .lines()
        .find(|line| line.split_whitespace().next() == Some(&name))
        .with_context(|| format!("/proc/stat has no {name}"))?;
    // user nice system idle iowait irq softirq
    let ticks: u32 = line
        .split_whitespace()
        .skip(6)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok())
        .sum();
    Ok(Duration::from_secs(1) * ticks / TICKS)
}
