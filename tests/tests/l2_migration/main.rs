//! Taking over from kube-proxy: its rules go, those of others stay, and its connections live on. And leaving again.

mod cleanup;
mod connections;
mod leaving;

use std::process::ExitCode;

use testbed::agent::Uplink;
use testbed::runner;

fn main() -> ExitCode {
    let mut rows = cleanup::rows();
    for uplink in [Uplink::Xdp, Uplink::Tc] {
        rows.push(connections::row(uplink));
    }
    rows.push(leaving::row());
    runner::main(rows)
}
