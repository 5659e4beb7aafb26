//! `build`: the eBPF object first, then the agent that embeds it.
//!
//! The object has a compiler and a target directory of its own, so that it never waits for a lock of the host's
//! cargo. The agent is linked statically: the one file is all that a node needs. For tests it is built along with
//! them, in a profile that compiles in less than half of the time (`suite` in `Cargo.toml`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    cargo::{self, Executable},
    object_check, setup,
    setup::toolchain::Toolchain,
    shell::{self, say},
};

/// BPF programs have the byte order of the kernel that loads them.
const BPF_TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Debug information is where the linker takes the BTF from.
const BPF_FLAGS: &str = "-C debuginfo=2 -C target-cpu=v3 -C link-arg=--btf \
                         -C link-arg=--disable-expand-memcpy-in-order";

const AGENT: &str = "proxy-agent";

#[derive(Clone, Copy, PartialEq)]
pub enum Profile {
    Dev,
    Release,
}

/// What a build leaves behind.
pub struct Artifacts {
    pub object: PathBuf,
    pub agent: PathBuf,
}

impl Artifacts {
    /// How the programs of the `tests` package learn the paths.
    pub fn variables(&self) -> [(&'static str, &Path); 2] {
        [
            ("PORTSIDE_EBPF_OBJECT", &self.object),
            ("PORTSIDE_AGENT", &self.agent),
        ]
    }
}

/// What tests run against, and the tests.
pub struct Suites {
    pub artifacts: Artifacts,
    /// Of the `tests` package.
    pub programs: Vec<Executable>,
}

pub fn all(profile: Profile) -> anyhow::Result<Artifacts> {
    let object = portside_object()?;
    let target = static_target(&setup::toolchain::host_compiler()?);
    say("Building", format!("the agent ({target}, static)"));
    let mut command = with_object(&object, &target);
    command.args(["--package", AGENT, "--bin", AGENT]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    let agent = cargo::executable(&mut command, AGENT).context("building the agent")?;
    Ok(Artifacts { object, agent })
}

/// The agent and these targets of the `tests` package, given as cargo wants them, by one build: all are static, as
/// machines without libraries want them, and share what they depend on.
pub fn suites(targets: &[&str]) -> anyhow::Result<Suites> {
    let object = portside_object()?;
    let target = setup::toolchain::host_compiler()?.version.host;
    say(
        "Building",
        format!("the agent and the suites ({target}, static, for tests)"),
    );
    let mut command = with_object(&object, &target);
    command
        .args(["--profile", "suite"])
        .args(["--package", AGENT, "--bin", AGENT, "--package", "tests"])
        .args(targets);
    let mut programs = cargo::executables(&mut command).context("building the suites")?;
    let agent = programs.iter().position(|program| program.name == AGENT);
    let agent = programs
        .swap_remove(agent.context("cargo built no agent")?)
        .path;
    Ok(Suites {
        artifacts: Artifacts { object, agent },
        programs,
    })
}

/// The programs that drive those of the object for the benchmark.
pub fn driver() -> anyhow::Result<PathBuf> {
    object(setup::toolchain()?, "portside-bench")
}

fn portside_object() -> anyhow::Result<PathBuf> {
    let toolchain = setup::toolchain()?;
    say("Building", "the eBPF object");
    object(toolchain, "portside")
}

/// The object with a program that every verifier refuses, for the test of the suite itself.
pub fn refused_object() -> anyhow::Result<PathBuf> {
    object(setup::toolchain()?, "portside-refused")
}

fn object(toolchain: &Toolchain, name: &str) -> anyhow::Result<PathBuf> {
    let variable = |suffix| {
        format!(
            "CARGO_TARGET_{}_{suffix}",
            BPF_TARGET.replace('-', "_").to_uppercase()
        )
    };
    let mut command = match toolchain.compiler.own_cargo() {
        Some(cargo) => cargo::command_of(cargo, "build"),
        None => cargo::command("build"),
    };
    command
        .args([
            "--quiet",
            "--release",
            "--package",
            "proxy-ebpf",
            "--bin",
            name,
        ])
        .args([
            "--target",
            BPF_TARGET,
            "-Z",
            "build-std=core",
            "--target-dir",
        ])
        .arg(shell::target_dir().join("ebpf"))
        // Allows `-Z` and the unstable parts of `core` on a stable compiler; a nightly does not mind.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &toolchain.compiler.rustc)
        .env(variable("LINKER"), &toolchain.linker)
        .env(variable("RUSTFLAGS"), BPF_FLAGS);
    // Flags meant for the host's compiler would replace ours, and a wrapper may hide our compiler.
    for host_only in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        command.env_remove(host_only);
    }
    let object = cargo::executable(&mut command, name)
        .with_context(|| format!("building the eBPF object {name}"))?;
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    object_check::refuse_memory_calls(&bytes)?;
    Ok(object)
}

/// A build of static programs, the agent among which embeds `object`.
fn with_object(object: &Path, target: &str) -> Command {
    let mut command = cargo::command("build");
    command
        // Named even where it is the host's own: the flags then stay away from build scripts and macros.
        .args(["--quiet", "--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("PORTSIDE_EBPF_OBJECT", object);
    command
}

/// musl where both its standard library and its C compiler are installed, else the host's own target.
fn static_target(host: &setup::toolchain::Compiler) -> String {
    let musl = host.version.host.replace("-gnu", "-musl");
    let library = host.sysroot.join("lib/rustlib").join(&musl).join("lib");
    if library.is_dir() && shell::find("musl-gcc").is_some() {
        musl
    } else {
        host.version.host.clone()
    }
}
