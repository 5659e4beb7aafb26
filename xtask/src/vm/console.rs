//! Runs a virtual machine, and judges it by its console.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::{prctl, signal::Signal};
use vm_protocol::line::{CLOSING, OK};

/// kernel/panic.c
const PANIC: &str = "Kernel panic - not syncing";

/// From the closing line to the end of the process.
const POWER_OFF: Duration = Duration::from_secs(15);

pub struct Limits {
    /// Without a line.
    pub stall: Duration,
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Some clusters may start at once, on a host that others use as well.
            stall: Duration::from_secs(600),
            total: Duration::from_secs(3600),
        }
    }
}

#[derive(Debug, PartialEq)]
pub enum Ending {
    /// The init said its last line.
    Closed {
        ok: bool,
    },
    Panicked(String),
    Stalled,
    TimedOut,
    /// The machine ended without a closing line.
    Vanished,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { ok: true } => f.write_str("finished"),
            Self::Closed { ok: false } => f.write_str("a suite failed"),
            Self::Panicked(line) => write!(f, "kernel panic: {line}"),
            Self::Stalled => f.write_str("stalled: the console was silent for too long"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Vanished => f.write_str("the machine ended without its closing line"),
        }
    }
}

/// Kills the process when this value is dropped.
pub struct Guard(pub Child);

impl Guard {
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) };
        let name = command.get_program().display().to_string();
        let child = command.spawn();
        child
            .map(Self)
            .with_context(|| format!("cannot run {name}"))
    }

    /// Lets it end by itself, so that it cleans up; it has said that it is about to.
    fn wait_a_while(&mut self) {
        let end = Instant::now() + POWER_OFF;
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the machine until its outcome is known, and passes on each line of its console.
pub fn watch(
    command: &mut Command,
    limits: &Limits,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<Ending> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Guard::spawn(command)?;
    let output = machine.0.stdout.take().context("stdout is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + limits.total;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match lines.recv_timeout(limits.stall.min(left)) {
            Ok(line) => {
                on_line(&line);
                if let Some(word) = line.strip_prefix(CLOSING) {
                    machine.wait_a_while();
                    return Ok(Ending::Closed {
                        ok: word.trim() == OK,
                    });
                }
                if let Some((_, what)) = line.split_once(PANIC) {
                    let what = what.trim_start_matches([':', ' ']);
                    return Ok(Ending::Panicked(what.to_owned()));
                }
            }
            Err(RecvTimeoutError::Timeout) if left <= limits.stall => {
                return Ok(Ending::TimedOut);
            }
            Err(RecvTimeoutError::Timeout) => return Ok(Ending::Stalled),
            Err(RecvTimeoutError::Disconnected) => return Ok(Ending::Vanished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(script: &str, stall_ms: u64, total_ms: u64) -> Ending {
        let limits = Limits {
            stall: Duration::from_millis(stall_ms),
            total: Duration::from_millis(total_ms),
        };
        watch(Command::new("sh").args(["-c", script]), &limits, |_| {}).unwrap()
    }

    #[test]
    fn each_ending_is_told_as_what_it_is() {
        let closed = |ok| Ending::Closed { ok };
        let long = 20_000;
        assert_eq!(ending("echo vm-test closing: ok", long, long), closed(true));
        assert_eq!(
            ending("echo vm-test closing: failed", long, long),
            closed(false)
        );
        assert_eq!(
            ending(
                "echo '[ 1.0] Kernel panic - not syncing: sysrq'; exec sleep 60",
                long,
                long
            ),
            Ending::Panicked("sysrq".into())
        );
        assert_eq!(ending("echo up; exec sleep 60", 200, long), Ending::Stalled);
        assert_eq!(
            ending("while echo busy; do sleep 0.05; done", long, 300),
            Ending::TimedOut
        );
        assert_eq!(ending("echo up", long, long), Ending::Vanished);
    }
}
