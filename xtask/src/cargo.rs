//! Calls the host's cargo, and reads from its messages where the programs are that it built.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use vm_protocol::variable;

use crate::{
    shell::{self, say},
    workspace,
};

/// A program that cargo built.
#[derive(Debug, PartialEq)]
pub struct Executable {
    pub name: String,
    /// Is it a test target? Otherwise it is a binary that cargo built along with one.
    pub is_test: bool,
    pub path: PathBuf,
}

/// A call of the cargo that runs xtask, in the checkout. It removes `PORTSIDE_EBPF_OBJECT`, so that no object is embedded
/// by accident: only the build of the agent sets it.
pub fn command(subcommand: &str) -> Command {
    command_of(
        env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        subcommand,
    )
}

/// A call of another cargo.
pub fn command_of(cargo: impl AsRef<OsStr>, subcommand: &str) -> Command {
    let mut command = Command::new(cargo);
    command
        .arg(subcommand)
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", workspace::target_dir())
        .env_remove(variable::OBJECT);
    command
}

/// The directories that may have programs that cargo installed: `PATH`, then those that cargo installs to.
pub fn program_dirs() -> Vec<PathBuf> {
    let home =
        |variable: &str, rest: &str| env::var_os(variable).map(|dir| Path::new(&dir).join(rest));
    shell::search_path()
        .into_iter()
        .chain(home("CARGO_INSTALL_ROOT", "bin"))
        .chain(home("CARGO_HOME", "bin"))
        .chain(home("HOME", ".cargo/bin"))
        .collect()
}

/// A call of a cargo subcommand that is a program of its own, in the checkout; `None` if it is not installed.
pub fn plugin(subcommand: &str) -> Option<Command> {
    let program = which::which_in_global(
        format!("cargo-{subcommand}"),
        Some(env::join_paths(program_dirs()).ok()?),
    )
    .ok()?
    .next()?;
    Some(command_of(program, subcommand))
}

/// Installs the newest release of a subcommand, with the dependencies that it was released with.
pub fn install_plugin(subcommand: &str) -> anyhow::Result<Command> {
    let package = format!("cargo-{subcommand}");
    say(
        "Installing",
        format!("{package} (cargo install, some minutes)"),
    );
    shell::run(command("install").args(["--quiet", "--locked", &package]))?;
    plugin(subcommand).with_context(|| format!("{package} was installed, but cannot be found"))
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

/// Runs a build that makes a single program, and returns the program's path.
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
