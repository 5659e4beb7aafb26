//! Services: is a packet for one, and which backend takes it. No flow is known here.

pub mod classify;
pub mod select;
