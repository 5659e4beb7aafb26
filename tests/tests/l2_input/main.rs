//! What the agent reads, says and serves, when others do their worst: manifests that block or forge, addresses in
//! disguise, clients that send nothing, names that nobody knows. Beside each there is something good, which has to go on.

mod clients;
mod manifests;
mod settings;
mod world;

use std::process::ExitCode;

use testbed::runner;

fn main() -> ExitCode {
    let mut rows = manifests::rows();
    rows.extend(clients::rows());
    rows.extend(settings::rows());
    runner::main(rows)
}
