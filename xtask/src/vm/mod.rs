//! `vm-test`: boots real kernels, holds what their verifiers say against a budget, runs the packet tables (L1).
//!
//! A kernel comes from the machine's package sources ([`kernels`]); the suites, an init and what they need are packed
//! into an [`initramfs`]; [`console`] runs QEMU and judges what the machine says; [`verifier`] has the figures of each
//! program. Only x86-64 is dealt with.

mod console;
mod cpio;
mod initramfs;
mod kernels;
mod modules;
mod verifier;

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use self::{
    console::{Ending, Limits},
    kernels::Kernel,
    verifier::{Budget, Report},
};
use crate::{
    build::{self, Profile},
    cargo,
    setup::{runtime, toolchain},
    shell::{self, say},
    test::summary::Summary,
};

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

/// How QEMU runs the guest's code.
#[derive(Clone, Copy)]
enum Accelerator {
    Kvm,
    Tcg,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "vm-test knows the kernel packages and the machine of x86-64 only"
    );
    runtime::ensure(&runtime::VM)?;
    let object = build::all(Profile::Dev)?.object;
    let payload = payload(object, options.filter.clone())?;
    let chosen: Vec<_> = if options.kernels.is_empty() {
        DEFAULT_KERNELS.map(String::from).to_vec()
    } else {
        options.kernels.clone()
    };

    let mut budget = Budget::open()?;
    let mut total = Summary::default();
    let mut accelerator = None;
    for series in &chosen {
        let kernel = kernels::get(series).with_context(|| format!("the kernel {series}"))?;
        let image = initramfs::pack(&kernel, &payload)
            .with_context(|| format!("packing the initramfs for {}", kernel.version))?;
        let accelerator = *accelerator.get_or_insert_with(|| probe(&kernel, &image));
        say("Booting", format!("{}: verifier, L1", kernel.version));
        let start = Instant::now();
        let mut summary = Summary::default();
        let mut report = Report::default();
        let ending = console::watch(
            &mut qemu(accelerator, &kernel, &image),
            &Limits::default(),
            |line| {
                println!("{line}");
                summary.read(line);
                report.read(line);
            },
        )?;
        let took = start.elapsed().as_secs();
        let complaint = complaint(&ending, &summary, &report);
        if let Some(complaint) = &complaint {
            say("Failed", format!("{}: {complaint}", kernel.version));
            if summary.failed() == 0 {
                summary.fail();
            }
        } else if options.write_docs {
            budget.set(series, &kernel.version, report);
        } else {
            match budget.check(series, &kernel.version, &report) {
                None => say(
                    "Unjudged",
                    format!("the verifier budget has no figures for {series}"),
                ),
                Some(complaints) => {
                    for complaint in complaints {
                        say("Failed", complaint);
                        summary.fail();
                    }
                }
            }
        }
        say(
            "Finished",
            format!("{}: {summary} in {took} s", kernel.version),
        );
        total.add(summary);
    }
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

/// What is wrong with a run, if anything.
fn complaint(ending: &Ending, summary: &Summary, report: &Report) -> Option<String> {
    match ending {
        Ending::Closed { ok: true } if report.0.is_empty() => {
            Some("the verifier's figures are missing".into())
        }
        Ending::Closed { ok: true } if summary.ran() + summary.skipped() == 0 => {
            Some("no test was run".into())
        }
        Ending::Closed { ok: true } if summary.failed() == 0 => None,
        Ending::Closed { .. } => Some("tests failed".into()),
        other => Some(other.to_string()),
    }
}

/// Static programs, so that the initramfs needs no libraries for them.
fn payload(object: PathBuf, filter: Option<String>) -> anyhow::Result<initramfs::Payload> {
    say("Building", "the suite for virtual machines (static)");
    let target = toolchain::host_compiler()?.version.host;
    let tests = cargo::executables(
        cargo::command("test")
            .args(["--quiet", "--package", "tests", "--no-run"])
            .args(["--test", "l1_tables"])
            .args(["--target", &target])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let programs = cargo::executables(
        cargo::command("build")
            .args(["--quiet", "--package", "tests"])
            .args(["--bin", "vm_init", "--bin", "vm_verifier"])
            .args(["--target", &target])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let program = |name: &str| {
        programs
            .iter()
            .chain(tests.iter().filter(|test| test.is_test))
            .find(|program| program.name == name)
            .map(|program| program.path.clone())
            .with_context(|| format!("cargo built no program {name}"))
    };
    let ip = shell::find("ip").context("`ip` is not installed")?;
    Ok(initramfs::Payload {
        init: program("vm_init")?,
        suites: vec![program("vm_verifier")?, program("l1_tables")?],
        object,
        tools: vec![ip],
        filter,
    })
}

/// KVM only where a guest gets as far as our init with it: on some machines it opens, and the guest hangs.
fn probe(kernel: &Kernel, image: &std::path::Path) -> Accelerator {
    let opens = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !opens {
        say("Using", "TCG: /dev/kvm cannot be opened");
        return Accelerator::Tcg;
    }
    let limits = Limits {
        stall: Duration::from_secs(15),
        total: Duration::from_secs(20),
    };
    let mut speaks = false;
    let mut command = qemu(Accelerator::Kvm, kernel, image);
    command.stderr(Stdio::null());
    let ending = console::watch(&mut command, &limits, |line| {
        speaks |= line.starts_with("running ");
    });
    if speaks {
        say("Using", "KVM");
        return Accelerator::Kvm;
    }
    let reason = ending.map_or_else(|error| error.to_string(), |ending| ending.to_string());
    say(
        "Using",
        format!("TCG: a guest under KVM did not come up ({reason})"),
    );
    Accelerator::Tcg
}

fn qemu(accelerator: Accelerator, kernel: &Kernel, image: &std::path::Path) -> Command {
    let (machine, cpu) = match accelerator {
        Accelerator::Kvm => ("q35,accel=kvm", "host"),
        Accelerator::Tcg => ("q35,accel=tcg", "max"),
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", machine, "-cpu", cpu])
        .args(["-smp", "2", "-m", "2G"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 rdinit=/init portside.vm_test",
        ]);
    command
}
