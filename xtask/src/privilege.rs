//! Root, where a command needs it: as we are, or through `sudo` where that asks no password.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::bail;

/// How to become root on this machine.
#[derive(Clone, Copy)]
pub enum Root {
    Already,
    Sudo,
}

impl Root {
    /// `None` where neither holds; the caller says what it wanted root for.
    pub fn find() -> Option<Self> {
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            return Some(Self::Already);
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        sudo.is_ok_and(|status| status.success())
            .then_some(Self::Sudo)
    }

    /// Like [`Root::find`], with the error that every command gives whose work is in the kernel.
    pub fn require(purpose: &str) -> anyhow::Result<Self> {
        match Self::find() {
            Some(root) => Ok(root),
            None => bail!(
                "{purpose} needs root (it loads BPF programs and makes network namespaces): \
                 run it as root, or allow this user `sudo` without a password"
            ),
        }
    }

    /// A command that runs `program` as root with these variables; `sudo` drops all others.
    pub fn command(self, program: &Path, variables: &[(&str, &Path)]) -> Command {
        match self {
            Self::Already => {
                let mut command = Command::new(program);
                command.envs(variables.iter().copied());
                command
            }
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("-n");
                if !variables.is_empty() {
                    command.arg("env");
                }
                for (name, value) in variables {
                    let mut assignment = std::ffi::OsString::from(name);
                    assignment.push("=");
                    assignment.push(value);
                    command.arg(assignment);
                }
                command.arg(program);
                command
            }
        }
    }
}
