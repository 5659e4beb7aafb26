//! `build`: the eBPF object, along with the agent's library, then the agent that embeds it.
//!
//! The object has a compiler and a target directory of its own, so that neither waits for a lock of the other's
//! cargo. The agent is linked statically: the one file is all that a node needs. For tests it is built along with
//! them, in a profile that compiles in less than half of the time (`suite` in `Cargo.toml`).

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use vm_protocol::variable;

use crate::{
    cargo::{self, Executable},
    object_check, setup,
    setup::toolchain::Toolchain,
    shell::{self, say},
    workspace,
};

/// BPF programs have the byte order of the kernel that loads them.
const BPF_TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// The linker makes the BTF from the debug information.
const BPF_FLAGS: &str = "-C debuginfo=2 -C target-cpu=v3 -C link-arg=--btf \
                         -C link-arg=--disable-expand-memcpy-in-order";

/// The object that the agent carries.
const OBJECT: &str = "portside";

const AGENT: &str = "proxy-agent";

#[derive(Clone, Copy, PartialEq)]
pub enum Profile {
    Dev,
    Release,
}

/// The files that a build makes.
pub struct Artifacts {
    pub object: PathBuf,
    pub agent: PathBuf,
}

impl Artifacts {
    /// The environment variables by which suites, `demo` and `bench` learn the paths.
    pub fn variables(&self) -> [(&'static str, &Path); 2] {
        [
            (variable::OBJECT, &self.object),
            (variable::AGENT, &self.agent),
        ]
    }
}

/// The programs under test, and the tests.
pub struct Suites {
    pub artifacts: Artifacts,
    /// The test programs, and those of virtual machines.
    pub programs: Vec<Executable>,
}

/// Builds the object and the agent, for machines like this one or for those of `target`.
pub fn all(profile: Profile, target: Option<&str>) -> anyhow::Result<Artifacts> {
    let host = setup::toolchain::host_compiler()?;
    let target = match target {
        None => static_target(&host),
        Some(target) => {
            setup::cross::ensure(&host, target)?;
            target.to_owned()
        }
    };
    let profile = match profile {
        Profile::Dev => "dev",
        Profile::Release => "release",
    };
    let Suites { artifacts, .. } = agent_and(&target, &["--profile", profile], "")?;
    Ok(artifacts)
}

/// Builds a release, and the program of the package `name` that runs against it.
pub fn with_program(name: &str) -> anyhow::Result<(Artifacts, PathBuf)> {
    let host = setup::toolchain::host_compiler()?;
    let target = static_target(&host);
    let program = ["--package", name, "--bin", name];
    if target == host.version.host {
        // Both in one build, for one target, or all that they share would be compiled twice.
        let selection = [&["--profile", "release"], program.as_slice()].concat();
        let Suites {
            artifacts,
            programs,
        } = agent_and(&target, &selection, &format!(" and the {name} program"))?;
        let program = programs.into_iter().find(|program| program.name == name);
        let program = program.with_context(|| format!("cargo built no program {name}"))?;
        return Ok((artifacts, program.path));
    }
    let artifacts = all(Profile::Release, None)?;
    say("Building", format!("the {name} program"));
    let mut command = cargo::command("build");
    command.args(["--quiet", "--release"]).args(program);
    Ok((artifacts, cargo::executable(&mut command, name)?))
}

/// Builds the agent and these targets of the packages by one call of cargo, so that they share their
/// dependencies. `targets` are cargo's arguments. All programs are static: virtual machines have no libraries.
pub fn suites(packages: &[&str], targets: &[&str]) -> anyhow::Result<Suites> {
    let target = setup::toolchain::host_compiler()?.version.host;
    let packages = packages.iter().flat_map(|name| ["--package", name]);
    let packages: Vec<_> = packages.collect();
    let selection = [&["--profile", "suite"], packages.as_slice(), targets].concat();
    agent_and(&target, &selection, " and the suites, for tests")
}

/// Builds the object, the agent, and what `selection` names. Only the agent waits for the object.
fn agent_and(target: &str, selection: &[&str], what: &str) -> anyhow::Result<Suites> {
    let build = |agent: &[&str]| {
        let mut command = static_build(target);
        command
            .args(["--package", AGENT, "--features", "proxy-agent/object"])
            .args(agent)
            .args(selection);
        command
    };
    say(
        "Building",
        format!("the eBPF object, and the agent{what} ({target}, static)"),
    );
    let mut library = build(&["--lib"]).spawn().context("cannot run cargo")?;
    let object = setup::toolchain().and_then(|toolchain| object(toolchain, OBJECT));
    if object.is_err() {
        // Nobody should wait for it in order to read why. It may have ended.
        let _ = library.kill();
    }
    let library = library.wait().context("waiting for cargo")?;
    let object = object?;
    ensure!(library.success(), "building the agent's library: {library}");
    let mut command = build(&["--bin", AGENT]);
    command
        .env(variable::OBJECT, &object)
        .env(variable::COMMIT, commit());
    let mut programs = cargo::executables(&mut command).context("building the agent")?;
    let agent = programs.iter().position(|program| program.name == AGENT);
    let agent = programs
        .swap_remove(agent.context("cargo built no agent")?)
        .path;
    Ok(Suites {
        artifacts: Artifacts { object, agent },
        programs,
    })
}

/// The commit of the checkout, and whether there is more than it has; `unknown` where there is no git.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        shell::capture(command.current_dir(workspace::root()).args(arguments))
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    let changed = changes.is_none_or(|changes| !changes.is_empty());
    format!("{}{}", commit.trim(), if changed { "-changed" } else { "" })
}

/// Builds the programs that call those of the object for the benchmark.
pub fn driver() -> anyhow::Result<PathBuf> {
    object(setup::toolchain()?, "portside-bench")
}

/// Builds an object with a program that every verifier refuses, for the suite's own test.
pub fn refused_object() -> anyhow::Result<PathBuf> {
    object(setup::toolchain()?, "portside-refused")
}

/// Checks the eBPF crate for the BPF target, without linking it: what an editor runs after each change. `args` are for
/// cargo.
pub fn check_object(args: &[OsString]) -> anyhow::Result<()> {
    shell::run(bpf_cargo(setup::toolchain()?, "check").args(args))
}

fn object(toolchain: &Toolchain, name: &str) -> anyhow::Result<PathBuf> {
    let mut command = bpf_cargo(toolchain, "build");
    command.args(["--release", "--bin", name]);
    let object = cargo::executable(&mut command, name)
        .with_context(|| format!("building the eBPF object {name}"))?;
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    object_check::refuse_memory_calls(&bytes)?;
    if name == OBJECT {
        object_check::compare_with_table(&bytes)?;
    }
    Ok(object)
}

/// Runs cargo on the eBPF crate, for the BPF target.
fn bpf_cargo(toolchain: &Toolchain, subcommand: &str) -> Command {
    let variable = |suffix| {
        format!(
            "CARGO_TARGET_{}_{suffix}",
            BPF_TARGET.replace('-', "_").to_uppercase()
        )
    };
    let mut command = match toolchain.compiler.own_cargo() {
        Some(cargo) => cargo::command_of(cargo, subcommand),
        None => cargo::command(subcommand),
    };
    command
        .args(["--quiet", "--package", "proxy-ebpf"])
        .args(["--target", BPF_TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(workspace::target_dir().join("ebpf"))
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
    command
}

/// A `cargo test` that shares what it compiles with [`suites`].
pub fn test() -> anyhow::Result<Command> {
    let target = setup::toolchain::host_compiler()?.version.host;
    let mut command = static_cargo("test", &target);
    command.args(["--profile", "suite"]);
    Ok(command)
}

/// A `cargo build` of static programs.
fn static_build(target: &str) -> Command {
    let mut command = static_cargo("build", target);
    command.arg("--quiet");
    command
}

fn static_cargo(subcommand: &str, target: &str) -> Command {
    let mut command = cargo::command(subcommand);
    command
        // Named even where it is the host's own: the flags then stay away from build scripts and macros.
        .args(["--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .envs(setup::cross::variables(target))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// The target of static programs: musl if both its standard library and its C compiler are installed, otherwise the
/// host's own.
fn static_target(host: &setup::toolchain::Compiler) -> String {
    let musl = host.version.host.replace("-gnu", "-musl");
    let library = host.sysroot.join("lib/rustlib").join(&musl).join("lib");
    if library.is_dir() && shell::find("musl-gcc").is_some() {
        musl
    } else {
        host.version.host.clone()
    }
}
