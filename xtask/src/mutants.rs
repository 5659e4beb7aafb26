//! `mutants`: plants damage in the code, one change at a time, and lists the damage that no test on the host sees.
//!
//! In: what to damage, all of it by default. Out: cargo-mutants' report, and its lists under `target/mutants/PART`. The
//! one rule: what survives is either caught by a new test, or in `.cargo/mutants.toml` with its reason.

use std::{ffi::OsString, fs, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::{cargo, shell::say, workspace};

const MUTANTS: &str = "mutants";

#[derive(Args)]
pub struct MutantsArgs {
    /// Damage this part only
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Damage this file only, a path or a pattern as cargo-mutants takes it; may be given again
    #[arg(short, long, value_name = "FILE", requires = "part")]
    file: Vec<String>,
    /// How many changes are tried at a time
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// More arguments of cargo-mutants, behind `--`
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// The pure parts of the code: tests on the host can see all that they do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// `proxy-common`: every decision about a packet
    Core,
    /// `proxy-agent/src/plan`: from what is wanted to map writes
    Plan,
    /// `proxy-agent/src/model`: from objects to what is wanted
    Model,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Plan => "plan",
            Self::Model => "model",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Core => "proxy-common",
            Self::Plan | Self::Model => "proxy-agent",
        }
    }

    const fn files(self) -> &'static str {
        match self {
            Self::Core => "proxy-common/src/**",
            Self::Plan => "proxy-agent/src/plan/**",
            Self::Model => "proxy-agent/src/model/**",
        }
    }

    /// The tests that have to see the damage, as arguments of `cargo test`.
    const fn tests(self) -> &'static [&'static str] {
        match self {
            // Tests with random packets take half of the time, and what they find is luck.
            Self::Core => &["--lib", "--test", "core", "--", "--skip", "fuzz::"],
            // The plan's tests make their services by the model.
            Self::Plan | Self::Model => &["--lib", "--", "plan::", "model::"],
        }
    }
}

/// Exits with a failure if some damage is seen by no test.
pub fn run(options: &MutantsArgs) -> anyhow::Result<ExitCode> {
    let parts = options
        .part
        .map_or_else(|| Part::value_variants().to_vec(), |part| vec![part]);
    if cargo::plugin(MUTANTS).is_none() {
        cargo::install_plugin(MUTANTS)?;
    }
    let mut all_caught = true;
    for part in parts {
        all_caught &= run_part(part, options)?;
    }
    Ok(if all_caught {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_part(part: Part, options: &MutantsArgs) -> anyhow::Result<bool> {
    let report = workspace::target_dir().join("mutants").join(part.name());
    fs::create_dir_all(&report).with_context(|| format!("cannot make {}", report.display()))?;
    let mut command = cargo::plugin(MUTANTS).context("cargo-mutants is gone")?;
    if options.jobs == 1 {
        // The dependencies stay compiled from one run to the next. Several copies of the sources cannot share a directory.
        command.env(
            "CARGO_TARGET_DIR",
            workspace::target_dir().join("mutants/build"),
        );
    } else {
        command.env_remove("CARGO_TARGET_DIR");
    }
    command
        .args(["--package", part.package()])
        .args(["--jobs", &options.jobs.to_string()])
        .arg("--output")
        .arg(&report);
    if options.file.is_empty() {
        command.args(["--file", part.files()]);
    }
    for file in &options.file {
        command.args(["--file", file]);
    }
    command.args(&options.args);
    if !part.tests().is_empty() {
        command.arg("--").args(part.tests());
    }
    say("Damaging", format!("{} ({})", part.name(), part.package()));
    let status = command.status().context("cannot run cargo-mutants")?;
    say("Reported", report.join("mutants.out").display().to_string());
    Ok(status.success())
}
