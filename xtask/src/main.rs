//! The one build system: `cargo xtask <command>`.
//!
//! Each command is a file of its own. It begins by finding or installing what it needs (`setup`), so that every command
//! works as the first one in a fresh clone.

mod build;
mod cargo;
mod chart_page;
#[cfg(test)]
mod documents;
mod image;
mod lint;
mod maps_page;
mod mutants;
mod object_check;
mod packages;
mod pages;
mod privilege;
mod programs;
mod reasons_page;
mod setup;
mod shell;
mod test;
mod vm;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::build::Profile;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, tests and demonstrates Portside"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the eBPF build needs, and say what was taken
    Setup,
    /// Build the eBPF object and the agent that carries it, as one static binary
    Build {
        /// Optimise the agent (the eBPF object always is)
        #[arg(long)]
        release: bool,
        /// For nodes of another architecture: aarch64-unknown-linux-gnu, x86_64-unknown-linux-gnu, or the same with musl
        #[arg(long, value_name = "TRIPLE")]
        target: Option<String>,
    },
    /// Run the suites; the last line is their sum
    Test(test::TestArgs),
    /// Boot kernels in virtual machines and run the suites in each
    VmTest(vm::VmTestArgs),
    /// Check formatting, clippy and (where cargo-deny is installed) the dependencies, as CI does
    Lint(lint::LintArgs),
    /// Check the eBPF programs for the BPF target, without linking them; arguments are for cargo
    CheckObject {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Plant damage in the core, the plan and the model, and list what no test sees (cargo-mutants; hours for all of it)
    Mutants(mutants::MutantsArgs),
    /// Make the container image of the agent, as one OCI archive
    Image {
        /// For nodes of another architecture, as in `build`
        #[arg(long, value_name = "TRIPLE")]
        target: Option<String>,
    },
    /// Write the pages that are made from the code: docs/maps.md, docs/reasons.md, the chart's README
    Docs {
        /// Only say whether it is up to date
        #[arg(long)]
        check: bool,
    },
    /// Show the datapath at work in a small cluster of network namespaces (--api: behind an API server, by
    /// kubectl; --tour: what stands on Services)
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure the datapath and the control plane
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let task = Cli::parse().command;
    match workspace::open().and_then(|()| run(task)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup => setup::toolchain().map(|_| ExitCode::SUCCESS),
        Task::Build { release, target } => {
            let profile = if release {
                Profile::Release
            } else {
                Profile::Dev
            };
            let artifacts = build::all(profile, target.as_deref())?;
            println!("{}", artifacts.agent.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Test(options) => test::run(&options),
        Task::VmTest(options) => vm::run(&options),
        Task::Lint(options) => lint::run(&options).map(|()| ExitCode::SUCCESS),
        Task::CheckObject { args } => build::check_object(&args).map(|()| ExitCode::SUCCESS),
        Task::Mutants(options) => mutants::run(&options),
        Task::Image { target } => image::run(target.as_deref()).map(|()| ExitCode::SUCCESS),
        Task::Docs { check } => pages::run(check).map(|()| ExitCode::SUCCESS),
        Task::Demo { args } => programs::run(programs::DEMO, &args, &setup::runtime::DEMO),
        Task::Bench { args } => programs::run(programs::BENCH, &args, &setup::runtime::BENCH),
    }
}
