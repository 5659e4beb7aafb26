//! Rows of a table as named tests, in the closing words of Rust's own test runner.
//!
//! A row that cannot run here is ignored with its reason, and nothing is built for it.

use std::fmt;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Error, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::unistd::Uid;

use crate::agent;
use crate::cluster::Cluster;
use crate::files;

/// An error of a row that found, on its way, what this kernel cannot do: the row is ignored with this reason.
#[derive(Debug)]
pub struct CannotRun(pub &'static str);

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for CannotRun {}

/// Something that rows share: built by the first that needs it, gone with the last.
pub struct Shared<T> {
    built: OnceLock<Result<T, String>>,
    build: Box<dyn Fn() -> Result<T> + Send + Sync>,
}

impl<T> Shared<T> {
    pub fn new(build: impl Fn() -> Result<T> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            built: OnceLock::new(),
            build: Box::new(build),
        })
    }

    pub fn get(&self) -> Result<&T> {
        let built = self
            .built
            .get_or_init(|| (self.build)().map_err(|error| format!("{error:#}")));
        built
            .as_ref()
            .map_err(|error| anyhow!("building what this row stands on: {error}"))
    }
}

/// Why no namespaces can be made here, if so.
pub fn no_testbed() -> Option<&'static str> {
    (!Uid::effective().is_root()).then_some("needs root")
}

/// Why no agent can be tested here, if so.
pub fn no_agent() -> Option<&'static str> {
    no_testbed().or_else(|| {
        agent::binary()
            .is_none()
            .then_some("PORTSIDE_AGENT names no agent binary")
    })
}

/// A test that needs only the testbed.
pub fn testbed_row(
    name: impl Into<String>,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    row(name, no_testbed(), test)
}

/// A test on a cluster with agents; its failure shows their logs.
pub fn cluster_row<C: AsRef<Cluster> + Send + Sync + 'static>(
    name: impl Into<String>,
    cluster: &Arc<Shared<C>>,
    test: impl FnOnce(&C) -> Result<()> + Send + 'static,
) -> Trial {
    ignorable_cluster_row(name, None, cluster, test)
}

/// The same where something else may be missing, too.
pub fn ignorable_cluster_row<C: AsRef<Cluster> + Send + Sync + 'static>(
    name: impl Into<String>,
    missing: Option<&'static str>,
    cluster: &Arc<Shared<C>>,
    test: impl FnOnce(&C) -> Result<()> + Send + 'static,
) -> Trial {
    let cluster = Arc::clone(cluster);
    row(name, no_agent().or(missing), move || {
        let cluster = cluster.get()?;
        test(cluster).map_err(|error| error.context(cluster.as_ref().logs()))
    })
}

/// Runs the rows as the arguments say.
pub fn main(rows: Vec<Trial>) -> ExitCode {
    run(&Arguments::from_args(), rows)
}

/// The same for rows that wait for most of their time: so many run side by side, unless the arguments say another number.
pub fn main_of_waiting(rows: Vec<Trial>, threads: usize) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    run(&arguments, rows)
}

fn run(arguments: &Arguments, rows: Vec<Trial>) -> ExitCode {
    files::allow_all();
    libtest_mimic::run(arguments, rows).exit_code()
}

/// Any test that can run only if nothing is `missing`.
pub fn row(
    name: impl Into<String>,
    missing: Option<&'static str>,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match missing {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => match test() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => match error.downcast_ref() {
                Some(CannotRun(reason)) => Ok(Completion::ignored_with(*reason)),
                None => Err(failed(error)),
            },
        },
    })
}

fn failed(error: Error) -> Failed {
    // The outermost context is the agents' logs, if any: causes first reads better.
    let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
    causes
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
        .join("\n")
        .into()
}
