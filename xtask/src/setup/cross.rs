//! What it takes to build the agent for nodes of another architecture: a linker and C compiler, and Rust's standard library.
//!
//! The eBPF object is the same file for all little-endian machines.

use std::{env::consts::ARCH, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};

use super::{
    runtime::{self, Tool},
    toolchain::Compiler,
};
use crate::shell::{self, say};

/// A target and the tools for it.
struct Target {
    name: &'static str,
    architecture: &'static str,
    compiler: &'static str,
    /// Where a distribution has them.
    tools: &'static [Tool],
}

const TARGETS: [Target; 4] = [
    Target {
        name: "aarch64-unknown-linux-gnu",
        architecture: "aarch64",
        compiler: "aarch64-linux-gnu-gcc",
        tools: &runtime::CROSS_AARCH64,
    },
    Target {
        name: "x86_64-unknown-linux-gnu",
        architecture: "x86_64",
        compiler: "x86_64-linux-gnu-gcc",
        tools: &runtime::CROSS_X86_64,
    },
    Target {
        name: "aarch64-unknown-linux-musl",
        architecture: "aarch64",
        compiler: "aarch64-linux-musl-gcc",
        tools: &[],
    },
    Target {
        name: "x86_64-unknown-linux-musl",
        architecture: "x86_64",
        compiler: "x86_64-linux-musl-gcc",
        tools: &[],
    },
];

/// The architecture of the machines that this target is for, by Rust's name.
///
/// # Errors
/// Where the agent is not built for such machines.
pub fn architecture(target: &str) -> anyhow::Result<&'static str> {
    Ok(find(target)?.architecture)
}

fn find(target: &str) -> anyhow::Result<&'static Target> {
    let found = TARGETS.iter().find(|known| known.name == target);
    found.with_context(|| {
        let names: Vec<_> = TARGETS.iter().map(|known| known.name).collect();
        format!(
            "--target {target}: the agent is built for {}",
            names.join(", ")
        )
    })
}

/// Installs what the target lacks, or says what is missing.
pub fn ensure(host: &Compiler, target: &str) -> anyhow::Result<()> {
    let known = find(target)?;
    if known.architecture != ARCH {
        runtime::ensure(known.tools)?;
        if shell::find(known.compiler).is_none() {
            bail!(
                "--target {target} needs {} on the PATH, which no package that is known here brings",
                known.compiler
            );
        }
    }
    ensure_library(host, target)
}

/// Rust's standard library of the target.
fn ensure_library(host: &Compiler, target: &str) -> anyhow::Result<()> {
    let library: PathBuf = host.sysroot.join("lib/rustlib").join(target).join("lib");
    if library.is_dir() {
        return Ok(());
    }
    let Some(rustup) = shell::find("rustup") else {
        bail!(
            "--target {target}: {} has no standard library for it, and there is no rustup that could install one",
            host.sysroot.display()
        );
    };
    say(
        "Installing",
        format!("Rust's standard library for {target}"),
    );
    shell::run(Command::new(rustup).args(["target", "add", target]))?;
    if !library.is_dir() {
        bail!(
            "rustup installed the standard library for {target}, but not in {}",
            host.sysroot.display()
        );
    }
    Ok(())
}

/// The environment by which cargo, and the `cc` crate in build scripts, find the tools; none for this machine's own architecture.
pub fn variables(target: &str) -> Vec<(String, &'static str)> {
    let known = TARGETS
        .iter()
        .find(|known| known.name == target && known.architecture != ARCH);
    let Some(known) = known else {
        return Vec::new();
    };
    let name = target.replace('-', "_");
    vec![
        (
            format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()),
            known.compiler,
        ),
        (format!("CC_{name}"), known.compiler),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_that_the_agent_is_built_for() {
        assert_eq!(
            architecture("aarch64-unknown-linux-musl").unwrap(),
            "aarch64"
        );
        let error = architecture("riscv64gc-unknown-linux-gnu").unwrap_err();
        assert!(error.to_string().contains("--target riscv64gc"), "{error}");
    }

    #[test]
    fn only_another_architecture_takes_other_tools() {
        assert_eq!(variables(&format!("{ARCH}-unknown-linux-gnu")), []);
        let other = match ARCH {
            "aarch64" => "x86_64",
            _ => "aarch64",
        };
        let compiler: &str = &format!("{other}-linux-gnu-gcc");
        let found = variables(&format!("{other}-unknown-linux-gnu"));
        let linker = format!(
            "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_LINKER",
            other.to_uppercase()
        );
        assert_eq!(found[0], (linker, found[0].1));
        assert_eq!(found[1].0, format!("CC_{other}_unknown_linux_gnu"));
        assert!(found.iter().all(|(_, tool)| *tool == compiler), "{found:?}");
    }
}
