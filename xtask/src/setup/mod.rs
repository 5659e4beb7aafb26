//! `setup`: what the eBPF build needs, found or installed.
//!
//! Two things are wanted: a Rust compiler that has the sources of `core` (the BPF targets come without a built one), and
//! a `bpf-linker` whose LLVM reads that compiler's bitcode. What is there is used; what is missing is installed where
//! this machine allows it; what cannot be is explained.

mod advice;
pub mod charts;
pub mod cross;
mod linker;
pub mod runtime;
mod select;
mod sources;
pub mod toolchain;
pub mod unpacked;

use std::sync::OnceLock;

use anyhow::bail;

use self::{
    select::{Selection, select},
    toolchain::Toolchain,
};
use crate::shell::say;

/// The toolchain of the eBPF object, installed if need be; looked for once.
pub fn toolchain() -> anyhow::Result<&'static Toolchain> {
    static TAKEN: OnceLock<Toolchain> = OnceLock::new();
    if let Some(toolchain) = TAKEN.get() {
        return Ok(toolchain);
    }
    let found = find()?;
    Ok(TAKEN.get_or_init(|| found))
}

fn find() -> anyhow::Result<Toolchain> {
    let explicit = toolchain::explicit()?;
    let pinned = explicit.is_some();
    let probe = || {
        explicit
            .clone()
            .map_or_else(toolchain::probe, |compiler| vec![compiler])
    };

    let mut failures = Vec::new();
    let mut selection = select(probe());
    if selection.usable.is_empty() && !pinned {
        failures.extend(sources::install(|| {
            selection = select(probe());
            !selection.usable.is_empty()
        }));
    }
    let Selection {
        usable,
        passed_over,
    } = selection;
    for (compiler, reason) in &passed_over {
        say("Passed over", format!("{compiler}: {reason}"));
    }

    // First a pair that is complete, then one that we can complete.
    for compiler in &usable {
        if let Some(linker) = linker::find(compiler) {
            return Ok(take(Toolchain {
                compiler: compiler.clone(),
                linker,
            }));
        }
    }
    for compiler in &usable {
        match linker::install(compiler) {
            Ok(linker) => {
                return Ok(take(Toolchain {
                    compiler: compiler.clone(),
                    linker,
                }));
            }
            Err(error) => {
                let failure = format!("bpf-linker for {compiler}: {error:#}");
                say("Passed over", &failure);
                failures.push(failure);
            }
        }
    }
    bail!("{}", advice::missing(usable.first(), &failures));
}

fn take(toolchain: Toolchain) -> Toolchain {
    say(
        "Using",
        format!("{} to compile the eBPF object", toolchain.compiler),
    );
    say(
        "Using",
        format!("{} to link it", toolchain.linker.display()),
    );
    toolchain
}
