//! Getting a compiler with the sources of `core`, the cheapest way first: the missing component of a rustup toolchain,
//! a distribution's pair of packages, a whole nightly.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::{select, toolchain};
use crate::{
    packages,
    shell::{self, say},
};

type Way = fn() -> anyhow::Result<()>;

/// Tries each way until `done` says that a usable compiler is there. Returns why ways failed.
pub fn install(mut done: impl FnMut() -> bool) -> Vec<String> {
    let ways: [(&str, Way); 3] = [
        ("rust-src through rustup", rustup_component),
        ("a distribution's rustc and rust-src", distribution_pair),
        ("a nightly through rustup", rustup_nightly),
    ];
    let mut failures = Vec::new();
    for (name, way) in ways {
        let failure = match way() {
            Ok(()) if done() => return failures,
            Ok(()) => format!("{name}: installed, but the compiler is still not usable"),
            Err(error) => format!("{name}: {error:#}"),
        };
        say("Failed", &failure);
        failures.push(failure);
    }
    failures
}

/// For an installed nightly, or else for the default toolchain.
fn rustup_component() -> anyhow::Result<()> {
    let toolchains = toolchain::rustup_toolchains();
    let Some(name) = toolchains
        .iter()
        .find(|name| name.starts_with("nightly"))
        .or_else(|| toolchains.first())
    else {
        bail!("no rustup toolchain here");
    };
    say("Installing", format!("rust-src for {name} (rustup)"));
    rustup(&["component", "add", "rust-src", "--toolchain", name])
}

fn rustup_nightly() -> anyhow::Result<()> {
    if shell::find("rustup").is_none() {
        bail!("no rustup here");
    }
    say("Installing", "a nightly with rust-src (rustup)");
    rustup(&[
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ])
}

/// rustup's progress is long; its errors come through.
fn rustup(args: &[&str]) -> anyhow::Result<()> {
    shell::run(
        Command::new("rustup")
            .env("RUST_BACKTRACE", "0")
            .arg("--quiet")
            .args(args)
            .stdout(Stdio::null()),
    )
}

fn distribution_pair() -> anyhow::Result<()> {
    if let Err(reason) = packages::available() {
        bail!("{reason}");
    }
    let names = packages::search("^rustc(-web|-[0-9.]+)?$");
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let versions = packages::candidates(&names);
    let best = versions
        .iter()
        .filter_map(|(name, version)| Some((toolchain::number(version)?, name)))
        .filter(|(version, _)| *version >= select::MINIMUM)
        .max()
        .context("no package of a rustc that is new enough")?;
    packages::install(&[best.1, &source_package(best.1)])
}

/// `rustc-web` has its sources in `rust-web-src`, `rustc-1.91` in `rust-1.91-src`.
fn source_package(compiler: &str) -> String {
    format!(
        "rust{}-src",
        compiler.strip_prefix("rustc").unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_package_is_named_after_the_compiler() {
        for (compiler, sources) in [
            ("rustc", "rust-src"),
            ("rustc-web", "rust-web-src"),
            ("rustc-1.91", "rust-1.91-src"),
        ] {
            assert_eq!(source_package(compiler), sources);
        }
    }
}
