//! `vm-test`: boots real kernels, holds what their verifiers say against a budget, and runs the suites in them: packet
//! tables (L1), sockets and topologies (L2), a node behind a NIC.
//!
//! A kernel comes from the machine's package sources ([`kernels`]); the suites ([`payload`]), an init and what they
//! need are packed into an [`initramfs`]; [`machine`] is QEMU, and [`console`] runs it until its fate is known, or
//! [`prompt`] until its user leaves; [`fleet`] runs several side by side; [`outcome`] judges what was said; [`verifier`]
//! has the figures of each program; [`matrix`] is the suites on all kernels; [`self_test`] plants failures. Only x86-64
//! is dealt with.

mod console;
mod cpio;
mod docs;
mod features;
mod fleet;
mod initramfs;
mod kernels;
mod machine;
mod matrix;
mod modules;
mod outcome;
mod payload;
mod prompt;
mod self_test;
mod tools;
mod verifier;

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use self::{features::Seen, matrix::Matrix, outcome::Said, payload::Level, verifier::Budget};
use crate::{setup::runtime, shell::say, test::summary::Summary};

/// As `--level` takes them.
const DEFAULT_LEVELS: [&str; 3] = ["l1", "l2", "nic"];

const DEFAULT_KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", kernels::NEWEST];

#[derive(Args)]
pub struct VmTestArgs {
    /// A series such as 6.1, `newest`, or the path of an image or of an unpacked kernel package; may be given more than once
    #[arg(long = "kernel", value_name = "VERSION|PATH")]
    kernels: Vec<String>,
    /// What is run in each machine
    #[arg(long, value_enum, value_delimiter = ',', default_values = DEFAULT_LEVELS)]
    level: Vec<Level>,
    /// Run only the tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Give a prompt in a machine with the (last) chosen kernel instead of running the suites; commands may come through a pipe
    #[arg(long, conflicts_with_all = ["filter", "write_docs", "self_test"])]
    shell: bool,
    /// Plant failures in machines and see that each is reported as what it is, instead of running the suites
    #[arg(long, conflicts_with_all = ["filter", "write_docs"])]
    self_test: bool,
    /// Take the verifier's figures as the new budget, and write the table of docs/kernels.md
    #[arg(long)]
    write_docs: bool,
}

pub fn run(options: &VmTestArgs) -> anyhow::Result<ExitCode> {
    let chosen: Vec<_> = if options.kernels.is_empty() {
        DEFAULT_KERNELS.map(String::from).to_vec()
    } else {
        options.kernels.clone()
    };
    if let Some(reason) = missing(&chosen) {
        bail!("no virtual machines can be run here: {reason}");
    }
    let matrix = Matrix::prepare(&chosen)?;
    let last = &chosen[chosen.len() - 1];
    if options.shell {
        runtime::ensure(&runtime::PROMPT)?;
        return matrix.prompt(last).map(|()| ExitCode::SUCCESS);
    }
    let total = if options.self_test {
        self_test::run(&matrix, last)?
    } else {
        run_suites(&matrix, options, &chosen)?
    };
    println!("{}", total.report());
    Ok(if succeeded(&total) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Did every test pass, and did any run?
fn succeeded(total: &Summary) -> bool {
    total.failed() == 0 && total.ran() > 0
}

fn run_suites(matrix: &Matrix, options: &VmTestArgs, chosen: &[String]) -> anyhow::Result<Summary> {
    let VmTestArgs {
        level,
        filter,
        write_docs,
        ..
    } = options;
    let mut budget = Budget::open()?;
    let mut seen = Seen::open()?;
    let total = matrix.run(chosen, level, filter.as_deref(), |series, kernel, said| {
        if *write_docs && said.measures {
            budget.set(series, kernel, std::mem::take(&mut said.report));
            seen.set(
                series,
                kernel,
                said.doctor.features.take().unwrap_or_default(),
            );
            Vec::new()
        } else {
            held_against(&budget, series, kernel, said)
        }
    })?;
    if *write_docs && total.failed() == 0 {
        verifier::write(&budget)?;
        seen.write()?;
    }
    Ok(total)
}

/// Runs the suites on these kernels, and the suite's own test, as a part of a longer run. On a machine that cannot run
/// them, they are skipped with the reason.
pub fn run_as_part(series: &[String], filter: Option<&str>) -> anyhow::Result<Summary> {
    if let Some(reason) = missing(series) {
        let mut summary = Summary::default();
        for series in series {
            say("Skipped", format!("the kernel {series}: {reason}"));
            summary.skip(&format!("the kernel {series}"), &reason);
        }
        return Ok(summary);
    }
    let budget = Budget::open()?;
    let matrix = Matrix::prepare(series)?;
    let mut total = matrix.run(
        series,
        &[Level::L1, Level::L2, Level::Nic],
        filter,
        |series, kernel, said| held_against(&budget, series, kernel, said),
    )?;
    if filter.is_none()
        && let Some(last) = series.last()
    {
        total.add(self_test::run(&matrix, last)?);
    }
    Ok(total)
}

/// Says why this machine cannot run these kernels; `None` if it can.
fn missing(series: &[String]) -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("only the kernel packages and the machine of x86-64 are known".into());
    }
    runtime::unobtainable(&runtime::VM)
        .or_else(|| runtime::unobtainable(&runtime::TESTS))
        .or_else(|| {
            series
                .iter()
                .find_map(|series| kernels::unobtainable(series))
        })
}

/// Compares the figures with the budget, if there are any, and says what is wrong.
fn held_against(budget: &Budget, series: &str, kernel: &str, said: &mut Said) -> Vec<String> {
    if !said.measures {
        return Vec::new();
    }
    if kernels::is_path(series) {
        let reason = "a kernel that was given by its path has none";
        said.summary.skip("the verifier's budget", reason);
        return Vec::new();
    }
    budget.check(series, kernel, &said.report)
}
