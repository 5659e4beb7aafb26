//! `lint`: what CI refuses. Unformatted code, a page that is not as the code says, any clippy warning, and
//! dependencies that `deny.toml` does not allow.
//!
//! Format and clippy need only the plain host toolchain. cargo-deny is a program of its own, which takes minutes to
//! compile: it is used where it is installed, and installed where the caller asks for it.

use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use crate::{
    cargo, pages,
    shell::{self, say},
};

const DENY: &str = "deny";
/// The checks that need nothing but the sources of the dependencies.
const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

#[derive(Args)]
pub struct LintArgs {
    /// Install cargo-deny by `cargo install`, if it is not there
    #[arg(long)]
    install: bool,
}

pub fn run(options: &LintArgs) -> anyhow::Result<()> {
    say("Checking", "format");
    shell::run(cargo::command("fmt").args(["--all", "--check"]))?;
    say("Checking", "pages that are written from the code");
    pages::run(true)?;
    say("Checking", "clippy");
    shell::run(cargo::command("clippy").args([
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    dependencies(options)
}

fn dependencies(options: &LintArgs) -> anyhow::Result<()> {
    if cargo::plugin(DENY).is_none() {
        if !options.install {
            say(
                "Skipped",
                "dependencies: cargo-deny is not installed (`cargo xtask lint --install` does that)",
            );
            return Ok(());
        }
        cargo::install_plugin(DENY)?;
    }
    say("Checking", format!("dependencies: {}", OFFLINE.join(", ")));
    shell::run(deny()?.arg("check").args(OFFLINE))?;
    // The known faults are in a repository of their own. Where it cannot be had, nothing can be said about faults.
    if shell::capture(deny()?.args(["fetch", "db"])).is_none() {
        say(
            "Skipped",
            "dependencies, advisories: the advisory database cannot be fetched",
        );
        return Ok(());
    }
    say("Checking", "dependencies: advisories");
    shell::run(deny()?.args(["check", "--disable-fetch", "advisories"]))
}

fn deny() -> anyhow::Result<Command> {
    let mut command = cargo::plugin(DENY).context("cargo-deny is gone")?;
    command.args(["--log-level", "error"]);
    Ok(command)
}
