//! What the demo shows people who drive its API server with `kubectl`: every step works, and no request fails.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use demo::{api, tour};
use testbed::runner::{self, no_agent, row};

fn main() -> ExitCode {
    let no_kubectl = (!api::has_kubectl()).then_some("kubectl is not installed");
    runner::main(vec![
        row(
            "kubectl_applies_scales_exposes_and_deletes_under_traffic",
            no_agent().or(no_kubectl),
            || shown(|text| api::show(false, text)),
        ),
        row(
            "the_tour_comes_to_its_end",
            no_agent().or(no_kubectl),
            || shown(tour::show),
        ),
    ])
}

fn shown(show: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut text = Vec::new();
    show(&mut text).map_err(|error| error.context(String::from_utf8_lossy(&text).into_owned()))
}
