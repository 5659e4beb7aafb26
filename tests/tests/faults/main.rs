//! The agent under faults: what others do to its datapath, to its process, to its server and to its listeners. What clients lose is
//! counted, and is nothing where the documents do not say otherwise.
//!
//! A short form runs with the other suites; `PORTSIDE_FAULTS=long` runs all of it.

mod api;
mod clock;
mod kills;
mod node;
mod objects;
mod one_agent;
mod pins;
mod probes;
mod process;
mod site;
mod state;
mod taken_away;

use std::process::ExitCode;

use testbed::runner;

/// Most of the time is waited.
const SIDE_BY_SIDE: usize = 3;

fn main() -> ExitCode {
    // The longest first.
    let mut rows = kills::rows();
    rows.extend(pins::rows());
    rows.extend(taken_away::rows());
    rows.extend(one_agent::rows());
    rows.extend(node::rows());
    rows.extend(process::rows());
    rows.extend(state::rows());
    rows.extend(clock::rows());
    rows.extend(probes::rows());
    rows.extend(objects::rows());
    rows.extend(api::rows());
    runner::main_of_waiting(rows, SIDE_BY_SIDE)
}
