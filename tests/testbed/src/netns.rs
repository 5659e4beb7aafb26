//! One network namespace, and how code gets into it.
//!
//! A socket stays in the namespace where it was created, so only its creation has to happen inside: a short-lived
//! thread enters, creates it and hands it back. The namespace has a name under `/run/netns`, where `ip netns exec` and
//! `nsenter --net` find it. The mount namespace is never changed: a child still sees bpffs and cgroups.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::interface;

pub(crate) const NETNS_DIR: &str = "/run/netns";

pub struct Netns {
    name: String,
    handle: File,
}

impl Netns {
    /// A new namespace with its loopback up and IPv6 duplicate address detection off. An address is tentative for a
    /// moment even so, and cannot be bound to; who adds one says `nodad`.
    pub fn create(name: String) -> Result<Self> {
        fs::create_dir_all(NETNS_DIR).context("creating the namespace directory")?;
        let path = path_of(&name);
        File::create_new(&path).with_context(|| format!("creating {}", path.display()))?;
        let handle = thread::scope(|scope| {
            let made = scope.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
                mount(
                    Some("/proc/thread-self/ns/net"),
                    &path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .context("binding the namespace to its name")?;
                Ok(File::open(&path)?)
            });
            made.join().expect("creating a namespace does not panic")
        })
        .with_context(|| format!("making the namespace {name}"))?;
        let netns = Self { name, handle };
        for key in ["accept_dad", "accept_ra"] {
            netns.sysctl(&format!("net/ipv6/conf/default/{key}"), "0")?;
            netns.sysctl(&format!("net/ipv6/conf/all/{key}"), "0")?;
        }
        netns
            .run(interface::start_loopback)
            .with_context(|| format!("bringing up the loopback of {}", netns.name))?;
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside the namespace and returns what it returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)
                .expect("entering a namespace that is held open");
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// What a thread of one's own calls to enter the namespace for good.
    pub fn enter(&self) -> impl FnOnce() + Send + 'static {
        let handle = self
            .handle
            .try_clone()
            .expect("a namespace handle can be duplicated");
        move || {
            setns(&handle, CloneFlags::CLONE_NEWNET)
                .expect("entering a namespace that is held open");
        }
    }

    /// Runs lines of `ip` commands as one batch.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.batch("ip", &["-batch", "-"], lines)
    }

    /// Feeds `script` to a command inside the namespace; a failure shows what it said and what it was fed.
    pub fn batch(&self, program: &str, arguments: &[&str], script: &str) -> Result<()> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // A child of a thread in the namespace is in it, too, and this process is not copied for it.
        let mut child = self
            .run(|| command.spawn())
            .with_context(|| format!("starting `{program}`"))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that stops reading has failed and says why on stderr.
        let _ = stdin.write_all(script.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`{program}` failed in {}: {said}\nof the batch:\n{script}",
                self.name
            );
        }
        Ok(())
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let handle = self
            .handle
            .try_clone()
            .context("duplicating the namespace handle")?;
        let mut command = Command::new(program);
        let enter = move || Ok(setns(&handle, CloneFlags::CLONE_NEWNET)?);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// Writes a setting below `/proc/sys`, with slashes, as an interface name may contain a dot.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value))
            .with_context(|| format!("setting {key}={value} in {}", self.name))
    }
}

impl Netns {
    /// For a namespace that is never dropped.
    pub fn delete(&self) {
        remove(&self.name);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes a namespace by its name; its interfaces go with it when the last socket is closed.
pub(crate) fn remove(name: &str) {
    let path = path_of(name);
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(&path);
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(NETNS_DIR).join(name)
}
