//! The agent under test: one process per node, in the node's namespace, with its log kept.

mod launch;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::Clock;
use crate::patience::patient;
use crate::topology::Node;

pub use launch::{BINARY_VARIABLE, Launch, Limit, Source, Tables, Uplink, ask, binary};

/// How long the first sync may take, loading and verifying the programs included.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take to stop before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// How long one takes that ends by itself: longer than it waits for another one.
const ENDS_WITHIN: Duration = Duration::from_secs(50);

/// How many lines of a log a failed test shows.
const SHOWN_LINES: usize = 40;

pub struct Agent {
    pid: Pid,
    state: Arc<State>,
    /// Starts the process, collects its log and reaps it.
    keeper: Option<JoinHandle<()>>,
    node: String,
    started: Instant,
}

#[derive(Default)]
struct State {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    /// Each with the time at which it came.
    lines: Vec<(Instant, String)>,
    ready: bool,
    ended: bool,
}

impl Agent {
    /// Starts an agent on `node` with the rights that its container has in a cluster, and waits until it says that its
    /// first sync is programmed.
    pub fn start(node: &Node, source: &Source, uplink: Uplink) -> Result<Self> {
        let agent = Self::begin(&Launch::new(node, source, uplink))?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// Starts an agent, which may have to wait for its source.
    pub fn begin(launch: &Launch) -> Result<Self> {
        let name = launch.node().name().to_owned();
        Self::keep(launch.command()?, launch.clock().cloned(), name)
    }

    /// Starts another command of the agent's binary that goes on, such as `controller`.
    pub fn of(mut command: Command, name: &str) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Self::keep(command, None, name.to_owned())
    }

    /// Ends it without a chance to do anything about it, and waits until it is gone.
    pub fn kill(self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        drop(self);
    }

    /// Waits until it has ended.
    pub fn await_end(&self) -> Result<()> {
        let limit = patient(ENDS_WITHIN);
        self.state.wait(limit, |log| log.ended);
        ensure!(
            self.state.log().ended,
            "the agent runs after {limit:?}\n{}",
            self.log()
        );
        Ok(())
    }

    pub fn is_ready(&self) -> bool {
        self.state.log().ready
    }

    /// Every line of its log so far.
    pub fn lines(&self) -> Vec<String> {
        let log = self.state.log();
        log.lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// How long after its start it first said `text`, if it did.
    pub fn said_after(&self, text: &str) -> Option<Duration> {
        let log = self.state.log();
        let (at, _) = log.lines.iter().find(|(_, line)| line.contains(text))?;
        Some(*at - self.started)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The end of the agent's log.
    pub fn log(&self) -> String {
        let log = self.state.log();
        let from = log.lines.len().saturating_sub(SHOWN_LINES);
        let lines: Vec<_> = log.lines[from..]
            .iter()
            .map(|(_, line)| line.as_str())
            .collect();
        format!("--- agent of {} ---\n{}\n", self.node, lines.join("\n"))
    }

    /// Runs the command on a thread that lives as long as the process: the process is told to end with its parent,
    /// and to the kernel the parent is the thread.
    fn keep(mut command: Command, clock: Option<Clock>, node: String) -> Result<Self> {
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let state = Arc::new(State::default());
        let (sender, receiver) = std::sync::mpsc::channel();
        let logging = Arc::clone(&state);
        let started = Instant::now();
        let keeper = thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let stderr = child.stderr.take().expect("stderr is piped");
            let pid = Pid::from_raw(child.id() as i32);
            if let Some(clock) = clock
                && let Err(error) = clock.keep(pid)
            {
                let _ = child.kill();
                logging.add(format!("its clock: {error:#}"));
            }
            let _ = sender.send(Ok(pid));
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                logging.add(line);
            }
            let end = child
                .wait()
                .map_or_else(|error| error.to_string(), |status| status.to_string());
            logging.end(&end);
        });
        let pid = receiver
            .recv()
            .context("the agent's keeper is gone")?
            .context("starting the agent")?;
        Ok(Self {
            pid,
            state,
            keeper: Some(keeper),
            node,
            started,
        })
    }

    /// Waits until its first sync is programmed.
    pub fn wait_until_ready(&self) -> Result<()> {
        let limit = patient(READY_WITHIN);
        self.state.wait(limit, |log| log.ready || log.ended);
        if self.state.log().ready {
            return Ok(());
        }
        bail!(
            "the agent ended or was not ready within {limit:?}\n{}",
            self.log()
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if self.state.log().ended {
                break;
            }
            // Not reaped yet, or only just: an id is not given again so soon.
            let _ = kill(self.pid, signal);
            self.state.wait(patient(STOPPED_WITHIN), |log| log.ended);
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl State {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log
            .lock()
            .expect("nobody panics while holding the log")
    }

    /// Waits until the log is as wanted, but not for longer than `patience`.
    fn wait(&self, patience: Duration, wanted: impl Fn(&Log) -> bool) {
        let waited = self
            .changed
            .wait_timeout_while(self.log(), patience, |log| !wanted(log));
        drop(waited.expect("nobody panics while holding the log"));
    }

    fn add(&self, line: String) {
        let mut log = self.log();
        log.ready |= line.contains("ready: ");
        log.lines.push((Instant::now(), line));
        self.changed.notify_all();
    }

    fn end(&self, status: &str) {
        let mut log = self.log();
        let end = format!("(ended: {status})");
        log.lines.push((Instant::now(), end));
        log.ended = true;
        self.changed.notify_all();
    }
}
