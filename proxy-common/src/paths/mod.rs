//! The order of it all, from a packet to its verdict: the fast path, the slow path, and what ends them.

pub mod answer;
pub mod decide;
pub mod fast;
pub mod fragment;
pub mod icmp;
pub mod send;
pub mod slow;
