//! The maps, as the core sees them: a door for each thing that is kept.
//!
//! [`Node`] and [`Meters`] are what both families use; [`Services`], [`Flows`] and [`Routes`] each has for itself. The eBPF
//! half implements them with BPF maps and helpers, tests with ordinary collections.

pub mod flows;
pub mod meters;
pub mod node;
pub mod routes;
pub mod services;

use crate::addr::Family;
pub use flows::{
    ClosedCell, EndsCell, FlowCell, Flows, Put, Queues, ShareCell, Table, count_on, hints_hold,
};
pub use meters::Meters;
pub use node::Node;
pub use routes::{Fib, Hop, Routes};
pub use services::Services;

/// All doors together, for what leads a packet through.
pub trait Tables<F: Family>: Node + Meters + Services<F> + Flows<F> + Routes<F> {}

impl<F: Family, T: Node + Meters + Services<F> + Flows<F> + Routes<F>> Tables<F> for T {}
