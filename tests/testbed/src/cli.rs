//! The agent's commands, as `kubectl exec` into its container runs them.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vm_protocol::variable;

use crate::topology::Node;
use crate::{agent, deployment};

/// `kubectl`, as `cargo xtask test` names it in the environment, or else as it is on `PATH`.
pub fn kubectl() -> OsString {
    env::var_os(variable::KUBECTL).unwrap_or_else(|| "kubectl".into())
}

/// Why there is no `kubectl`, if so.
pub fn no_kubectl() -> Option<&'static str> {
    let version = Command::new(kubectl())
        .args(["version", "--client"])
        .output();
    let runs = version.is_ok_and(|ran| ran.status.success());
    (!runs).then_some("kubectl is not installed")
}

/// What a command prints about the datapath of `node`; an error where it fails.
pub fn ask(node: &Node, arguments: &[&str]) -> Result<String> {
    output(command(node, arguments)?)
}

/// How a command ends, what it prints and what it complains of.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command that may end without success.
pub fn run(node: &Node, arguments: &[&str]) -> Result<Ran> {
    let output = command(node, arguments)?.output()?;
    let text = |bytes| String::from_utf8(bytes).context("no text");
    Ok(Ran {
        code: output.status.code(),
        out: text(output.stdout)?,
        err: text(output.stderr)?,
    })
}

/// With the rights of the agent's container.
pub fn command(node: &Node, arguments: &[&str]) -> Result<Command> {
    let binary = agent::binary().context("the agent's path is not set")?;
    let mut command = node.netns().command(binary)?;
    command
        .args(arguments)
        .arg("--bpffs")
        .arg(&node.bpffs)
        .arg("--state-dir")
        .arg(&node.state);
    deployment::confine(&mut command)?;
    Ok(command)
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
