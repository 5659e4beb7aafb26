//! `test`: builds, runs the levels one after the other, and closes with one line that sums them up.
//!
//! L0 runs as the caller, with the host's toolchain, in the profile of the suites: so the two share what they compile. The other levels are the test targets of the `tests` package. Their
//! names tell the level: `l1*` is L1, `l3*` is L3, `faults*` is the suite of faults, and every other one is L2. They run as
//! root and get the paths of the agent and the object. Kernels in virtual machines come last, if they are asked for.

pub mod summary;

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use vm_protocol::variable;

use self::summary::Summary;
use crate::{
    build::{self, Suites},
    cargo::Executable,
    privilege::Root,
    setup::{charts, runtime, unpacked},
    shell::say,
    vm,
};

#[derive(Args)]
pub struct TestArgs {
    /// Run this level only
    #[arg(long)]
    level: Option<Level>,
    /// Then run L1 and L2 on these kernels in virtual machines (see `vm-test`), too
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',')]
    kernels: Vec<String>,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Level {
    /// Unit and property tests, on the host
    L0,
    /// Packet tables through the loaded programs
    L1,
    /// Topologies of network namespaces with real sockets
    L2,
    /// The agent behind an API server, and that server itself
    L3,
    /// The agent under faults; `PORTSIDE_FAULTS=long` for all of them
    Faults,
}

impl Level {
    /// The level of a test target of the `tests` package.
    fn of(target: &str) -> Self {
        if target.starts_with("l1") {
            Self::L1
        } else if target.starts_with("l3") {
            Self::L3
        } else if target.starts_with("faults") {
            Self::Faults
        } else {
            Self::L2
        }
    }
}

pub fn run(options: &TestArgs) -> anyhow::Result<ExitCode> {
    let levels = options
        .level
        .map_or_else(|| Level::value_variants().to_vec(), |level| vec![level]);
    let mut total = Summary::default();

    if levels.contains(&Level::L0) {
        let summary = run_l0(options.filter.as_deref())?;
        total.add(summary_of(Level::L0, summary, options));
    }
    let in_kernel: Vec<_> = levels
        .into_iter()
        .filter(|level| *level != Level::L0)
        .collect();
    if !in_kernel.is_empty() {
        let root = Root::require("this level of tests")?;
        runtime::ensure(&runtime::TESTS)?;
        let Suites {
            artifacts,
            programs,
        } = build::suites(&["tests"], &["--test", "*"])?;
        for level in in_kernel {
            let mut summary = Summary::default();
            let peers = peers(level);
            for suite in programs
                .iter()
                .filter(|suite| suite.is_test && Level::of(&suite.name) == level)
            {
                summary.add(run_suite(
                    suite,
                    root,
                    &artifacts,
                    &peers,
                    options.filter.as_deref(),
                )?);
            }
            total.add(summary_of(level, summary, options));
        }
    }

    if !options.kernels.is_empty() {
        total.add(vm::run_as_part(
            &options.kernels,
            options.filter.as_deref(),
        )?);
    }

    println!("{}", total.report());
    let ok = total.failed() == 0 && total.ran() > 0;
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reports a level that ran no test: that is a broken set-up, unless a filter was given.
fn summary_of(level: Level, mut summary: Summary, options: &TestArgs) -> Summary {
    if summary.ran() == 0 && options.filter.is_none() {
        summary.fail(&format!("{level:?}"), "no test was run");
    }
    summary
}

fn run_l0(filter: Option<&str>) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let selection = ["--workspace", "--exclude", "tests"];
    say("Testing", format!("L0, {}", selection.join(" ")));
    let mut command = build::test()?;
    // All crates are to be heard, also behind one that fails.
    command
        .args(["--no-fail-fast"])
        .args(selection)
        .args(filter);
    match charts::programs() {
        Ok(charts::Programs { helm, kubectl }) => command
            .env(variable::HELM, helm)
            .env(variable::KUBECTL, kubectl),
        Err(error) => command.env(variable::NO_HELM, format!("{error:#}")),
    };
    summary.add(stream("L0", &mut command)?);
    Ok(summary)
}

/// Real programs that suites of a level set beside Portside, each with the variable that names it. What cannot be had is told
/// here, and by the rows that want it.
fn peers(level: Level) -> Vec<(&'static str, PathBuf)> {
    let found = match level {
        Level::L2 => vec![
            (variable::NGINX, unpacked::nginx()),
            (variable::HAPROXY, unpacked::haproxy()),
        ],
        Level::L3 => {
            let kubectl = charts::programs().map(|programs| programs.kubectl);
            vec![
                (variable::KUBECTL, kubectl),
                (variable::PROMETHEUS, unpacked::prometheus()),
            ]
        }
        Level::L0 | Level::L1 | Level::Faults => Vec::new(),
    };
    let found = found.into_iter().filter_map(|(name, path)| match path {
        Ok(path) => Some((name, path)),
        Err(error) => {
            say("Without", format!("{name}: {error:#}"));
            None
        }
    });
    found.collect()
}

fn run_suite(
    suite: &Executable,
    root: Root,
    artifacts: &build::Artifacts,
    peers: &[(&'static str, PathBuf)],
    filter: Option<&str>,
) -> anyhow::Result<Summary> {
    say(
        "Testing",
        format!("{:?}, {}", Level::of(&suite.name), suite.name),
    );
    let mut variables = artifacts.variables().to_vec();
    variables.extend(peers.iter().map(|(name, path)| (*name, path.as_path())));
    let mut command = root.command(&suite.path, &variables);
    stream(&suite.name, command.args(filter))
}

/// Runs the test programs of a suite, and passes their output on line by line.
fn stream(suite: &str, command: &mut Command) -> anyhow::Result<Summary> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let output = child.stdout.take().context("stdout is piped")?;
    let mut summary = Summary::default();
    summary.begin(suite);
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        summary.read(&line);
    }
    let status = child.wait()?;
    if !status.success() && summary.failed() == 0 {
        // It died before it could count: a crash or a build error.
        say("Failed", format!("{name}: {status}"));
        summary.fail(&name, &status.to_string());
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_of_the_level_that_its_name_begins_with() {
        assert_eq!(Level::of("l1_tables"), Level::L1);
        assert_eq!(Level::of("l2_matrix"), Level::L2);
        assert_eq!(Level::of("testbed"), Level::L2);
        assert_eq!(Level::of("l3_api_server"), Level::L3);
        assert_eq!(Level::of("faults"), Level::Faults);
    }
}
