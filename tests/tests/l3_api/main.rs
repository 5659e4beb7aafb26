//! The agent end to end: objects go into an API server, packets come out of a node. What the server does wrong on the way
//! is scripted.

mod absence;
mod faults;
mod objects;
mod own_service;
mod world;

use std::process::ExitCode;

use tests::runner;

/// Pauses between two attempts, not processors, are what most rows take.
const SIDE_BY_SIDE: usize = 6;

fn main() -> ExitCode {
    let mut rows = objects::rows();
    rows.extend(absence::rows());
    rows.extend(faults::rows());
    rows.extend(own_service::rows());
    runner::main_of_waiting(rows, SIDE_BY_SIDE)
}
