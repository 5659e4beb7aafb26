//! The first process of a virtual machine of `cargo xtask vm-test`: mounts, loads modules, runs the suites, powers off.
//!
//! It talks to the host over the console. The last line that it prints is [`CLOSING`] and whether every suite
//! succeeded; a host that does not see that line knows that something else ended the machine.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::utsname::uname;
use vm_protocol::line::{CLOSING, FAILED, KERNEL, OK, SUITE};
use vm_protocol::{TOKEN, place, variable};

const MOUNTS: [(&str, &str); 6] = [
    ("devtmpfs", "/dev"),
    ("sysfs", "/sys"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("vm_init is the first process of a test machine, and does nothing anywhere else");
        return ExitCode::FAILURE;
    }
    // A container's first process has the number, too: it must not be powered off.
    if let Err(error) = recognise() {
        eprintln!("vm_init: {error:#}");
        return ExitCode::FAILURE;
    }
    let outcome = run();
    if let Err(error) = &outcome {
        println!("vm_init: {error:#}");
    }
    let word = match outcome {
        Ok(true) => OK,
        Ok(false) | Err(_) => FAILED,
    };
    println!("{CLOSING} {word}");
    // Only a refusal returns; the kernel then panics as its first process ends, which the host reports.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    ExitCode::FAILURE
}

/// An error unless this is a machine made for the suite. A container has its /proc mounted; our machine not yet.
fn recognise() -> Result<()> {
    if !Path::new("/proc/cmdline").exists() {
        mount_at("proc", "/proc")?;
    }
    let command_line = fs::read_to_string("/proc/cmdline")?;
    anyhow::ensure!(
        command_line.split_whitespace().any(|word| word == TOKEN),
        "the kernel's command line has no {TOKEN}"
    );
    Ok(())
}

/// Whether every suite succeeded.
fn run() -> Result<bool> {
    for (kind, target) in MOUNTS {
        mount_at(kind, target)?;
    }
    for module in lines(place::MODULES)? {
        insert(&module)?;
    }
    let system = uname().context("uname")?;
    println!("{KERNEL} {}", system.release().display());
    let variables = lines(place::VARIABLES)?;
    let variables: Vec<_> = variables
        .iter()
        .filter_map(|line| line.split_once('='))
        .collect();
    let mut ok = true;
    for suite in lines(place::SUITES)? {
        let mut words = suite.split('\t');
        let program = words
            .next()
            .with_context(|| format!("{} has an empty line", place::SUITES))?;
        let name = Path::new(program).file_name().unwrap_or_default();
        println!("{SUITE} {}", name.display());
        let status = Command::new(program)
            .args(words)
            .env("PATH", "/bin")
            .env(variable::OBJECT, place::OBJECT)
            .env(variable::AGENT, place::AGENT)
            .envs(variables.iter().copied())
            .status()
            .with_context(|| format!("running {program}"))?;
        if !status.success() {
            println!("vm_init: {program}: {status}");
            ok = false;
        }
    }
    Ok(ok)
}

fn mount_at(kind: &str, target: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    mount(
        Some(kind),
        target,
        Some(kind),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mounting {kind} at {target}"))
}

/// One module; its dependencies come before it in the list.
fn insert(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {path}"))?;
    finit_module(&file, &CString::default(), ModuleInitFlags::empty())
        .with_context(|| format!("loading {path}"))
}

fn lines(path: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.lines().map(String::from).collect())
}
