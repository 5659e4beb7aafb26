//! L1: packet in, packet out, verdict, reason: through the loaded programs, by BPF_PROG_TEST_RUN.
//!
//! Every expected frame is built from its fields by `etherparse` (SCTP by [`sctp`]), checksums in full, and compared byte by byte.

mod cases;
mod frame;
mod fuzz;
mod node;
mod sctp;
mod world;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use testbed::address::Family;
use testbed::runner::{self, Shared, no_testbed};

use crate::node::Node;
use crate::world::World;

/// Why no program can be run here, if so.
fn no_object() -> Option<&'static str> {
    no_testbed().or_else(|| {
        std::env::var_os(node::OBJECT_VARIABLE)
            .is_none()
            .then_some("PORTSIDE_EBPF_OBJECT names no object")
    })
}

fn main() -> ExitCode {
    let node = Shared::new(|| Node::create().map(Mutex::new));
    let mut rows = Vec::new();
    for (name, protocols, case) in cases::all() {
        for family in Family::BOTH {
            for &protocol in protocols {
                let node = node.clone();
                let row = format!("{name}/{family}/{protocol:?}").to_lowercase();
                rows.push(runner::row(row, no_object(), move || {
                    // A row that failed leaves tables that the next one clears.
                    let mut node = node.get()?.lock().unwrap_or_else(PoisonError::into_inner);
                    node.clear()?;
                    case(&mut World::new(&mut node, family, protocol))
                }));
            }
        }
    }
    rows.extend(fuzz::rows(no_object()));
    runner::main(rows)
}
