//! The binary: arguments in, an exit code out.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use proxy_agent::cli::Cli;
use tracing_subscriber::EnvFilter;

/// The client library says of each attempt what the source of Services says once.
const FILTER: &str = "info,kube_client=off";

/// The eBPF object. The library has no part in it, and so can be compiled along with it.
#[cfg(feature = "object")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PORTSIDE_EBPF_OBJECT"));
/// Where a plain `cargo build` made this, which needs no toolchain but a stable one.
#[cfg(not(feature = "object"))]
static OBJECT: &[u8] = &[];

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    match Cli::parse().execute(OBJECT) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
