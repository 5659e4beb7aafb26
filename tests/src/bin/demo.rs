//! `cargo xtask demo`: a Service at work in a small cluster of network namespaces.

use std::process::ExitCode;

use tests::demo;

fn main() -> ExitCode {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => {
            eprintln!("usage: cargo xtask demo [--keep]");
            return ExitCode::FAILURE;
        }
    };
    match demo::run(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
