//! What an agent makes of its node's network: which devices it takes, where on them it takes packets, by which address it
//! speaks, and in which order its programs come and go. Nothing is prepared for it that a node does not have by itself,
//! and no device is named to it where it should find it.

mod devices;
mod neighbours;
mod nft;
mod nics;
mod site;
mod sources;
mod stacks;
mod switches;
mod takeover;
mod team;
mod xdp_choice;

use std::process::ExitCode;

use testbed::runner;

fn main() -> ExitCode {
    let mut rows = xdp_choice::rows();
    rows.extend(takeover::rows());
    rows.extend(devices::rows());
    rows.extend(stacks::rows());
    rows.extend(nics::rows());
    rows.extend(sources::rows());
    rows.extend(neighbours::rows());
    rows.extend(switches::rows());
    runner::main(rows)
}
