//! `cargo xtask demo`: a Service at work in a small cluster of network namespaces.

use std::process::ExitCode;

use demo::Show;

fn main() -> ExitCode {
    let (mut keep, mut show) = (false, Show::Files);
    for flag in std::env::args().skip(1) {
        match flag.as_str() {
            "--keep" => keep = true,
            "--api" => show = Show::Api,
            "--tour" => show = Show::Tour,
            _ => {
                eprintln!("usage: cargo xtask demo [--api] [--keep] | --tour");
                return ExitCode::FAILURE;
            }
        }
    }
    match demo::run(show, keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
