//! A dry run: the same core on the same tables, of which it changes none, with a record of all that it asked.
//!
//! In: tables, and a [`Trace`] with a request. Out: the verdict, the packet as it would leave, and in the trace each question with its
//! answer. The rule: [`Dry`] decides nothing and writes nothing. What the datapath would store it answers as the table would; a cell that
//! the datapath would write in place is a copy.
//!
//! | file | subject |
//! |---|---|
//! | `trace` | what a run is asked, what it asks, how it ends; as it lies in a map |
//! | `dry` | the doors of the tables, for reading alone |
//! | `step` | the record, typed, for whoever reads it |

mod dry;
#[cfg(not(target_arch = "bpf"))]
mod step;
pub mod trace;

pub use dry::{Cursor, Dry};
#[cfg(not(target_arch = "bpf"))]
pub use step::Step;
pub use trace::{End, Request, Told, Trace};
