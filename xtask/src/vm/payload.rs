//! What is built for a machine: static programs, so that the initramfs needs no libraries for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::initramfs::Payload;
use crate::{
    build::{self, Profile},
    cargo,
    setup::toolchain,
    shell::{self, say},
};

/// Builds the object and the suites.
pub fn build(filter: Option<&str>) -> anyhow::Result<Payload> {
    let object = build::all(Profile::Dev)?.object;
    say("Building", "the suite for virtual machines (static)");
    let target = toolchain::host_compiler()?.version.host;
    let tests = cargo::executables(
        cargo::command("test")
            .args(["--quiet", "--package", "tests", "--no-run"])
            .args(["--test", "l1_tables"])
            .args(["--target", &target])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let programs = cargo::executables(
        cargo::command("build")
            .args(["--quiet", "--package", "tests"])
            .args(["--bin", "vm_init", "--bin", "vm_verifier"])
            .args(["--target", &target])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let program = |name: &str| -> anyhow::Result<PathBuf> {
        programs
            .iter()
            .chain(tests.iter().filter(|test| test.is_test))
            .find(|program| program.name == name)
            .map(|program| stripped(name, &program.path))
            .with_context(|| format!("cargo built no program {name}"))?
    };
    let ip = shell::find("ip").context("`ip` is not installed")?;
    Ok(Payload {
        init: program("vm_init")?,
        suites: vec![program("vm_verifier")?, program("l1_tables")?],
        object,
        tools: vec![ip],
        filter: filter.map(String::from),
    })
}

/// A copy without debug information, which is most of a program, and which a machine would unpack at every boot.
fn stripped(name: &str, program: &Path) -> anyhow::Result<PathBuf> {
    let directory = shell::target_dir().join("vm/programs");
    fs::create_dir_all(&directory)
        .with_context(|| format!("making the directory {}", directory.display()))?;
    let copy = directory.join(name);
    shell::run(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&copy)
            .arg(program),
    )?;
    Ok(copy)
}
