//! Runs other programs, and prints progress lines.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

/// Prints a progress line as cargo does: a right-aligned verb, then its object. It goes to stderr, so that stdout holds
/// only the command's result.
pub fn say(verb: &str, what: impl AsRef<str>) {
    eprintln!("{verb:>12} {}", what.as_ref());
}

/// Runs a program to its end. A failure is an error that names the program.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

/// Returns the program's output if it ran and succeeded: for probing a machine.
pub fn capture(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds the first program of this name on `PATH` and in the system's administrator directories, which an ordinary user's
/// `PATH` often lacks.
pub fn find(name: &str) -> Option<PathBuf> {
    let directories = search_path()
        .into_iter()
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    which::which_in_global(name, Some(env::join_paths(directories).ok()?))
        .ok()?
        .next()
}

pub fn search_path() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}
