//! Running the node's programs.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program and returns what it prints; none where it is not installed. `input` is what it reads.
///
/// # Errors
/// With the program's name and what it said, where it failed.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<Option<String>> {
    let spawned = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("starting {program}")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // One that stops reading has failed, and says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} {}: {} ({})",
            arguments.join(" "),
            said.trim(),
            output.status
        );
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}
