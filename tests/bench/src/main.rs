//! `cargo xtask bench`: what the datapath costs, and how fast the control plane is.

use std::process::ExitCode;

use bench::{Part, Size};

const USAGE: &str = "usage: cargo xtask bench [programs] [connections] [forward] [control] [--markdown]
of control: [--services N] [--endpoints N (of each service)] [--changes N] [--rate N (changes per second)]";

fn main() -> ExitCode {
    let Some((parts, size, markdown)) = read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match bench::run(&parts, &size, markdown) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to measure, at which size, and whether to print Markdown; nothing where an argument is not understood.
fn read(mut arguments: impl Iterator<Item = String>) -> Option<(Vec<Part>, Size, bool)> {
    let (mut parts, mut size, mut markdown) = (Vec::new(), Size::default(), false);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next()?.parse().ok().filter(|number| *number > 0);
        match argument.as_str() {
            "--markdown" => markdown = true,
            "--services" => size.services = number()?,
            "--endpoints" => size.endpoints = number()?,
            "--changes" => size.changes = number()?,
            "--rate" => size.rate = number()?,
            "programs" => parts.push(Part::Programs),
            "connections" => parts.push(Part::Connections),
            "forward" => parts.push(Part::Forward),
            "control" => parts.push(Part::Control),
            _ => return None,
        }
    }
    if parts.is_empty() {
        parts = Part::ALL.to_vec();
    }
    Some((parts, size, markdown))
}
