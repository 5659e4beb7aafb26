//! The agent end to end: objects go into an API server, packets come out of a node. What the server does wrong on the way
//! is scripted.

mod absence;
mod access;
mod balancer;
mod churn;
mod death;
mod faults;
mod notices;
mod objects;
mod outage;
mod own_service;
mod room;
mod traffic;
mod world;

use std::process::ExitCode;

use testbed::runner;

/// Pauses between two attempts, not processors, are what most rows take.
const SIDE_BY_SIDE: usize = 6;

fn main() -> ExitCode {
    // The longest first.
    let mut rows = churn::rows();
    rows.extend(room::rows());
    rows.extend(outage::rows());
    rows.extend(death::rows());
    rows.extend(balancer::rows());
    rows.extend(objects::rows());
    rows.extend(absence::rows());
    rows.extend(access::rows());
    rows.extend(faults::rows());
    rows.extend(notices::rows());
    rows.extend(own_service::rows());
    runner::main_of_waiting(rows, SIDE_BY_SIDE)
}
