//! From what the cluster wants to an ordered list of map writes.
//!
//! In: [`crate::model::DesiredService`]s, what the node's own addresses are, and the time. Out: [`Op`]s, to be done in their order.
//! Nothing here does I/O: the same sequence of calls gives the same operations.
//!
//! The one rule: **after each single operation, whatever a look-up finds is whole.** A frontend leads to a service that is there, a service's
//! slots to backends that are there. So what is referred to is written before what refers to it, a service's value is
//! replaced at once, and what is let go is freed after a time in which every program that saw it has ended.
//!
//! | file | subject |
//! |---|---|
//! | `op` | one map write |
//! | `image` | what the maps hold, from which a planner starts |
//! | `planner` | the state between calls: who has which id, and what changes for one service |
//! | `placed` | one service port as it stands in the maps |
//! | `batch` | the writes of one call, sorted into their order |
//! | `addresses` | ClusterIPs and local addresses: which addresses are refused as a whole |
//! | `departures` | what is let go, until it may be used again |
//! | `gate` | the bits that let other traffic pass |
//! | `tables` | the tables with their room: what is free, and who may have more |
//! | `ledger` | who has how much room in which table |
//! | `ids` | service and backend ids |
//! | `extents` | runs of the slot array |
//! | `spread` | what a service's slots hold: weights, consistent hashing |

mod addresses;
mod batch;
mod departures;
mod extents;
mod gate;
mod ids;
mod image;
mod ledger;
mod op;
mod placed;
mod planner;
mod spread;
mod tables;
#[cfg(test)]
mod tests;

pub use self::{
    addresses::NodeAddresses,
    image::Image,
    ledger::{Limits, Room, Table},
    op::{BackendEntry, FrontendAt, Op},
    placed::balancing,
    planner::{Change, LeftOut, Plan, Planner},
    tables::Shortage,
};
