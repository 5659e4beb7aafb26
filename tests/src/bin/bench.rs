//! `cargo xtask bench`: what the datapath costs.

use std::process::ExitCode;

use tests::bench::{self, Part};

fn main() -> ExitCode {
    let mut markdown = false;
    let mut parts = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--markdown" => markdown = true,
            "programs" => parts.push(Part::Programs),
            "connections" => parts.push(Part::Connections),
            "forward" => parts.push(Part::Forward),
            _ => {
                eprintln!(
                    "usage: cargo xtask bench [programs] [connections] [forward] [--markdown]"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if parts.is_empty() {
        parts = vec![Part::Programs, Part::Connections, Part::Forward];
    }
    match bench::run(&parts, markdown) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
