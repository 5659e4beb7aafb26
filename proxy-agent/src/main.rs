//! The binary: arguments in, an exit code out.

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};
use proxy_agent::{
    cli::{Cli, print_raw},
    log, memory,
    plain::plain,
    version,
};

#[global_allocator]
static ALLOCATOR: memory::Telling = memory::Telling;

/// The eBPF object. The library has no part in it, and so can be compiled along with it.
#[cfg(feature = "object")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PORTSIDE_EBPF_OBJECT"));
/// Where a plain `cargo build` made this, which needs no toolchain but a stable one.
#[cfg(not(feature = "object"))]
static OBJECT: &[u8] = &[];

/// Of the source that this was built from, as `cargo xtask build` finds it.
const COMMIT: Option<&str> = option_env!("PORTSIDE_COMMIT");

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            return finish(print_raw(version::full(COMMIT, OBJECT).as_bytes()));
        }
        Err(error) => error.exit(),
    };
    log::init(&cli.log());
    finish(cli.execute(OBJECT))
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", plain(&format!("{error:#}")));
        ExitCode::FAILURE
    })
}
