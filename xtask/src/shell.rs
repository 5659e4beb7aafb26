//! Running other programs, and telling the user in short lines what is going on.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

/// A progress line: a right-aligned verb, then what it is done to, as cargo prints them. On stderr, so that stdout
/// stays the command's result.
pub fn say(verb: &str, what: impl AsRef<str>) {
    eprintln!("{verb:>12} {}", what.as_ref());
}

/// Runs to the end; anything but success is an error that names the program.
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

/// What the program printed, if it ran and succeeded: for probing what a machine has.
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

/// The first program of this name on `PATH` and in the system's administrator directories, which an ordinary user's
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
