//! The binary: arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser;
use proxy_agent::{cli::Cli, log, memory, plain::plain};

#[global_allocator]
static ALLOCATOR: memory::Telling = memory::Telling;

/// The eBPF object. The library has no part in it, and so can be compiled along with it.
#[cfg(feature = "object")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PORTSIDE_EBPF_OBJECT"));
/// Where a plain `cargo build` made this, which needs no toolchain but a stable one.
#[cfg(not(feature = "object"))]
static OBJECT: &[u8] = &[];

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init(&cli.log());
    match cli.execute(OBJECT) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", plain(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
