//! The core, played packet by packet against a [`world`] of ordinary collections: what the hooks do with the
//! kernel's maps and helpers happens here without a kernel.
//!
//! A test's name is a sentence; `cases!` runs it for both families and all protocols.

mod answers;
mod checks;
mod choices;
mod errors;
mod explain;
mod fast;
mod fragments;
mod fuzz;
mod headers;
mod life;
mod ports;
mod proofs;
mod room;
mod routes;
mod sctp;
mod ways;
mod world;
