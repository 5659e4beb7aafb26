//! Calling the host's cargo, and learning from its messages where the programs it built are.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace;

/// A program that cargo built.
#[derive(Debug, PartialEq)]
pub struct Executable {
    pub name: String,
    /// A test target; else a binary that cargo built along with it.
    pub is_test: bool,
    pub path: PathBuf,
}

/// The cargo that runs us, in the checkout. The object is never embedded by accident: only the build of the agent
/// sets `PORTSIDE_EBPF_OBJECT`.
pub fn command(subcommand: &str) -> Command {
    command_of(
        env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        subcommand,
    )
}

/// The same with another cargo.
pub fn command_of(cargo: impl AsRef<OsStr>, subcommand: &str) -> Command {
    let mut command = Command::new(cargo);
    command
        .arg(subcommand)
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", workspace::target_dir())
        .env_remove("PORTSIDE_EBPF_OBJECT");
    command
}

/// Runs a `cargo build` or `cargo test --no-run` and lists what it made.
pub fn executables(command: &mut Command) -> anyhow::Result<Vec<Executable>> {
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("cargo failed: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(parse_artifact)
        .collect())
}

/// The one executable of a build that makes a single program.
pub fn executable(command: &mut Command, name: &str) -> anyhow::Result<PathBuf> {
    executables(command)?
        .into_iter()
        .find(|executable| executable.name == name)
        .map(|executable| executable.path)
        .with_context(|| format!("cargo built no program {name}"))
}

fn parse_artifact(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Executable {
        name: message["target"]["name"].as_str()?.to_owned(),
        is_test: message["target"]["kind"][0] == "test",
        path: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_with_a_program_are_listed() {
        let program = r#"{"reason":"compiler-artifact","target":{"name":"l2_matrix","kind":["test"]},"executable":"/t/l2"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"tests"},"executable":null}"#;
        let expected = Executable {
            name: "l2_matrix".into(),
            is_test: true,
            path: "/t/l2".into(),
        };
        assert_eq!(parse_artifact(program), Some(expected));
        assert_eq!(parse_artifact(library), None);
        assert_eq!(parse_artifact("not json"), None);
    }
}
