//! The agent's commands, as `kubectl exec` into its container runs them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::topology::Node;
use crate::{agent, deployment};

/// What a command prints about the datapath of `node`; an error where it fails.
pub fn ask(node: &Node, arguments: &[&str]) -> Result<String> {
    let binary = agent::binary().context("the agent's path is not set")?;
    let mut command = node.netns().command(binary)?;
    command
        .args(arguments)
        .arg("--bpffs")
        .arg(&node.bpffs)
        .arg("--state-dir")
        .arg(&node.state);
    deployment::confine(&mut command)?;
    output(command)
}

/// What a command prints; an error with what it complained of where it fails.
pub fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
