//! Runs QEMU (or whatever its arguments say) in a network namespace of its own with a tap device, and a client in it that
//! the guest's tests ask to make requests (`testbed::outside`).

use std::env;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use testbed::netns::Netns;
use testbed::outside::{self, CLIENT};
use testbed::run::Run;
use vm_protocol::TAP;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vm_outside: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let program = arguments
        .next()
        .context("give a program and its arguments")?;
    let run = Run::start()?;
    let netns = Netns::create(run.netns_name("outside"))?;
    netns.ip(&format!(
        "tuntap add dev {TAP} mode tap multi_queue\n\
         addr add {}/24 dev {TAP}\n\
         addr add {}/64 dev {TAP} nodad\n\
         link set {TAP} up\n",
        CLIENT.v4, CLIENT.v6
    ))?;
    let netns: &'static Netns = Box::leak(Box::new(netns));
    outside::serve(netns)?;
    let mut command = netns.command(program)?;
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    let status = command.args(arguments).status();
    netns.delete();
    drop(run);
    let status = status?;
    ensure!(status.success(), "{status}");
    Ok(ExitCode::SUCCESS)
}
