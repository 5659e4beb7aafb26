//! Brings the virtual machine down in a given way, so that `cargo xtask vm-test --self-test` sees how that is reported.

use std::{env, fs, process::ExitCode, thread};

use anyhow::{Context, Result, bail};
use vm_protocol::TOKEN;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm_plant: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let command_line = fs::read_to_string("/proc/cmdline")?;
    anyhow::ensure!(
        command_line.split_whitespace().any(|word| word == TOKEN),
        "this is no machine of the suite"
    );
    match env::args().nth(1).as_deref() {
        Some("panic") => fs::write("/proc/sysrq-trigger", "c").context("asking for a crash"),
        Some("hang") => loop {
            thread::park();
        },
        other => bail!("give `panic` or `hang`, and not {other:?}"),
    }
}
