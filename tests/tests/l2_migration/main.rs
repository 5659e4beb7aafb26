//! Taking over from kube-proxy: its rules go, those of others stay, and its connections live on.

mod cleanup;
mod connections;

use std::process::ExitCode;

use testbed::agent::Uplink;
use testbed::runner;

fn main() -> ExitCode {
    let mut rows = cleanup::rows();
    for uplink in [Uplink::Xdp, Uplink::Tc] {
        rows.push(connections::row(uplink));
    }
    runner::main(rows)
}
