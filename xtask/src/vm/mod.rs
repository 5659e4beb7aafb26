//! `vm-test`: boots real kernels, holds what their verifiers say against a budget, runs the packet tables (L1).
//!
//! A kernel comes from the machine's package sources ([`kernels`]); the suites ([`payload`]), an init and what they
//! need are packed into an [`initramfs`]; [`machine`] is QEMU, and [`console`] runs it until its fate is known;
//! [`outcome`] judges what was said; [`verifier`] has the figures of each program. Only x86-64 is dealt with.

mod console;
mod cpio;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod outcome;
mod payload;
mod verifier;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use self::{
    console::Limits, initramfs::Payload, machine::Accelerator, outcome::Said, verifier::Budget,
};
use crate::{setup::runtime, shell::say, test::summary::Summary};

const DEFAULT_KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", kernels::NEWEST];

#[derive(Args)]
pub struct Options {
    /// A series such as 6.1, or `newest`; may be given more than once
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Run only the tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Take the verifier's figures as the new budget, and write the table of docs/kernels.md
    #[arg(long)]
    write_docs: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let chosen: Vec<_> = if options.kernels.is_empty() {
        DEFAULT_KERNELS.map(String::from).to_vec()
    } else {
        options.kernels.clone()
    };
    if let Some(reason) = missing(&chosen) {
        bail!("no virtual machines can be run here: {reason}");
    }
    let mut matrix = Matrix::prepare(options.filter.as_deref())?;
    let mut budget = Budget::open()?;
    let total = matrix.run(&chosen, |series, kernel, said| {
        if options.write_docs {
            budget.set(series, kernel, std::mem::take(&mut said.report));
            Vec::new()
        } else {
            held_against(&budget, series, kernel, said)
        }
    })?;
    for reason in total.skip_reasons() {
        println!("skipped: {reason}");
    }
    if options.write_docs && total.failed() == 0 {
        verifier::write(&budget)?;
    }
    println!("{total}");
    Ok(if total.failed() == 0 && total.ran() > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the suites on these kernels as a part of a longer run; skipped, with the reason, on a machine that cannot.
pub fn run_as_part(series: &[String], filter: Option<&str>) -> anyhow::Result<Summary> {
    if let Some(reason) = missing(series) {
        let mut summary = Summary::default();
        for series in series {
            say("Skipped", format!("the kernel {series}: {reason}"));
            summary.skip(format!("the kernel {series}: {reason}"));
        }
        return Ok(summary);
    }
    let budget = Budget::open()?;
    Matrix::prepare(filter)?.run(series, |series, kernel, said| {
        held_against(&budget, series, kernel, said)
    })
}

/// Why this machine cannot run these kernels, whatever is done, if so.
fn missing(series: &[String]) -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("only the kernel packages and the machine of x86-64 are known".into());
    }
    runtime::unobtainable(&runtime::VM).or_else(|| {
        series
            .iter()
            .find_map(|series| kernels::unobtainable(series))
    })
}

fn held_against(budget: &Budget, series: &str, kernel: &str, said: &Said) -> Vec<String> {
    budget
        .check(series, kernel, &said.report)
        .unwrap_or_else(|| {
            say(
                "Unjudged",
                format!("the verifier budget has no figures for {series}"),
            );
            Vec::new()
        })
}

/// What all kernels are given.
struct Matrix {
    payload: Payload,
    accelerator: Option<Accelerator>,
}

impl Matrix {
    fn prepare(filter: Option<&str>) -> anyhow::Result<Self> {
        runtime::ensure(&runtime::VM)?;
        Ok(Self {
            payload: payload::build(filter)?,
            accelerator: None,
        })
    }

    /// Boots one kernel after the other; `judge` says what is wrong with a run that ended well by itself.
    fn run(
        &mut self,
        chosen: &[String],
        mut judge: impl FnMut(&str, &str, &mut Said) -> Vec<String>,
    ) -> anyhow::Result<Summary> {
        let mut total = Summary::default();
        for series in chosen {
            let summary = self
                .run_one(series, &mut judge)
                .with_context(|| format!("the kernel {series}"))?;
            total.add(summary);
        }
        Ok(total)
    }

    fn run_one(
        &mut self,
        series: &str,
        judge: &mut impl FnMut(&str, &str, &mut Said) -> Vec<String>,
    ) -> anyhow::Result<Summary> {
        let kernel = kernels::get(series)?;
        let version = &kernel.version;
        let image = initramfs::pack(&kernel, &self.payload)
            .with_context(|| format!("packing the initramfs for {version}"))?;
        let accelerator = *self
            .accelerator
            .get_or_insert_with(|| machine::probe(&kernel, &image));
        say("Booting", format!("{version}: verifier, L1"));
        let start = Instant::now();
        let mut said = Said::default();
        let ending = console::watch(
            &mut machine::qemu(accelerator, &kernel, &image),
            &Limits::default(),
            |line| {
                println!("{line}");
                said.read(line);
            },
        )?;
        let took = start.elapsed().as_secs();
        if let Some(complaint) = said.complaint(&ending, version) {
            say("Failed", format!("{version}: {complaint}"));
            if said.summary.failed() == 0 {
                said.summary.fail();
            }
        } else {
            for complaint in judge(series, version, &mut said) {
                say("Failed", complaint);
                said.summary.fail();
            }
        }
        let release = said.release.as_deref().unwrap_or("an unknown kernel");
        say(
            "Finished",
            format!("{release} (its own uname): {} in {took} s", said.summary),
        );
        Ok(said.summary.on(version))
    }
}
