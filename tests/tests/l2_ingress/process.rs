//! A program that serves in a namespace until its handle is dropped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::netns::Netns;
use testbed::one_cpu::OneCpu;
use testbed::patience::patient;

/// How long it may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

pub struct Process {
    pid: Pid,
    said: PathBuf,
    end: Mutex<Receiver<ExitStatus>>,
    has_ended: bool,
    /// Starts and reaps it: to the kernel the thread is its parent, with which it is told to end.
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program`, which finds the libraries that were unpacked along with it. What it says goes into the directory.
    pub fn start(
        netns: &Netns,
        program: &Path,
        arguments: &[&str],
        directory: &Path,
    ) -> Result<Self> {
        let said = directory.join("said");
        let output = fs::File::create(&said).with_context(|| format!("making {said:?}"))?;
        let mut command: Command = netns.command(program)?;
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        if let Some(usr) = program.ancestors().nth(2) {
            let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
            command.env("LD_LIBRARY_PATH", usr.join(libraries));
        }
        // A master ends its workers when it is asked to end, and not when it is killed.
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?)) };
        let (started, pid) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let keeper = thread::spawn(move || {
            // A proxy is a client that connects without a pause.
            let _on = OneCpu::stay();
            match command.spawn() {
                Ok(mut child) => {
                    let _ = started.send(Ok(Pid::from_raw(child.id() as i32)));
                    if let Ok(status) = child.wait() {
                        let _ = ended.send(status);
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            }
        });
        let pid = pid.recv().context("the keeper is gone")?;
        Ok(Self {
            pid: pid.with_context(|| format!("starting {}", program.display()))?,
            said,
            end: Mutex::new(end),
            has_ended: false,
            keeper: Some(keeper),
        })
    }

    /// Asks it to end, and waits until it has.
    pub fn end_by(&mut self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).context("asking it to end")?;
        let limit = patient(ENDS_WITHIN);
        let end = self.end.get_mut().expect("nobody panics with it");
        match end.recv_timeout(limit) {
            Ok(_) => {
                self.has_ended = true;
                Ok(())
            }
            Err(_) => bail!("it runs {limit:?} after {signal}:\n{}", self.said()),
        }
    }

    /// What it said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended && self.end_by(Signal::SIGTERM).is_err() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
