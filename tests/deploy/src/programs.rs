//! `helm` and `kubectl`, as `cargo xtask test` names them in the environment, or else as they are on `PATH`.

use std::{
    env,
    ffi::OsString,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use vm_protocol::variable;

use crate::objects::{self, Object};

/// Why nothing can be rendered here, if so.
pub fn missing() -> Option<String> {
    if let Ok(why) = env::var(variable::NO_HELM) {
        return Some(why);
    }
    for (name, program) in [("helm", helm()), ("kubectl", kubectl())] {
        let tried = Command::new(&program)
            .arg("version")
            .arg(if name == "helm" {
                "--short"
            } else {
                "--client"
            })
            .stdin(Stdio::null())
            .output();
        if !tried.is_ok_and(|output| output.status.success()) {
            return Some(format!(
                "{name} is not here; `cargo xtask test --level l0` fetches it"
            ));
        }
    }
    None
}

fn helm() -> OsString {
    env::var_os(variable::HELM).unwrap_or_else(|| "helm".into())
}

fn kubectl() -> OsString {
    env::var_os(variable::KUBECTL).unwrap_or_else(|| "kubectl".into())
}

/// A release of the chart.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
}

impl Release<'_> {
    pub const USUAL: Release<'static> = Release {
        name: "portside",
        namespace: "kube-system",
    };

    /// What it renders with these values.
    pub fn render(self, values: &str) -> Result<String> {
        self.run(&["template"], values)
    }

    /// What its installation tells the user.
    pub fn notes(self, values: &str) -> Result<String> {
        let text = self.run(&["install", "--dry-run=client"], values)?;
        let (_, notes) = text
            .split_once("\nNOTES:\n")
            .context("there are no notes")?;
        Ok(notes.to_owned())
    }

    fn run(self, verb: &[&str], values: &str) -> Result<String> {
        let mut command = Command::new(helm());
        command
            .args(verb)
            .arg(self.name)
            .arg(crate::root().join("deploy/helm/portside"))
            .args(["--namespace", self.namespace, "--values", "-"]);
        output(command, values)
    }
}

/// What a directory with a `kustomization.yaml` renders.
pub fn kustomize(dir: &Path) -> Result<Vec<Object>> {
    let mut command = Command::new(kubectl());
    command.arg("kustomize").arg(dir);
    objects::read(&output(command, "")?)
}

fn output(mut command: Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
