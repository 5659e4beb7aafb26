//! `cargo xtask demo`: a Service at work in a small cluster of network namespaces.

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut keep, mut by_api) = (false, false);
    for flag in std::env::args().skip(1) {
        match flag.as_str() {
            "--keep" => keep = true,
            "--api" => by_api = true,
            _ => {
                eprintln!("usage: cargo xtask demo [--api] [--keep]");
                return ExitCode::FAILURE;
            }
        }
    }
    match demo::run(keep, by_api) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
