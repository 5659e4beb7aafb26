//! What CI refuses: unformatted code and any clippy warning. Needs only the plain host toolchain.

use crate::{
    cargo,
    shell::{self, say},
};

pub fn run() -> anyhow::Result<()> {
    say("Checking", "format");
    shell::run(cargo::command("fmt").args(["--all", "--check"]))?;
    say("Checking", "clippy");
    shell::run(cargo::command("clippy").args([
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}
