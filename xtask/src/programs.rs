//! `demo` and `bench`: the programs of the packages of these names, which run against a release build, as root.
//!
//! They get the paths of the object and of the agent in the same variables as the test suites.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use vm_protocol::variable;

use crate::{
    build,
    privilege::Root,
    setup::{
        charts,
        runtime::{self, Tool},
    },
    shell::say,
};

pub const DEMO: &str = "demo";
pub const BENCH: &str = "bench";

/// Builds everything in release mode, then runs the program `name`; its exit code is ours.
pub fn run(name: &str, args: &[OsString], tools: &[Tool]) -> anyhow::Result<ExitCode> {
    let root = Root::require(name)?;
    runtime::ensure(tools)?;
    let (artifacts, program) = build::with_program(name)?;
    let mut variables = artifacts.variables().to_vec();
    let driver = match name {
        BENCH => Some(build::driver()?),
        _ => None,
    };
    variables.extend(
        driver
            .as_deref()
            .map(|driver| (variable::BENCH_OBJECT, driver)),
    );
    let kubectl = match name {
        DEMO => kubectl_for(args),
        _ => None,
    };
    variables.extend(
        kubectl
            .as_deref()
            .map(|kubectl| (variable::KUBECTL, kubectl)),
    );
    let status = root
        .command(&program, &variables)
        .args(args)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}

/// The `kubectl` for the parts of the demo that it leads. Without one they say what they do instead.
fn kubectl_for(args: &[OsString]) -> Option<PathBuf> {
    if !args.iter().any(|flag| flag == "--api" || flag == "--tour") {
        return None;
    }
    match charts::programs() {
        Ok(programs) => Some(programs.kubectl),
        Err(error) => {
            say("Without", format!("kubectl: {error:#}"));
            None
        }
    }
}
