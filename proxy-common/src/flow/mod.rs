//! Connections: found, begun, confirmed and ended. No packet is rewritten here.

pub mod closed;
pub mod crowd;
pub mod own;
pub mod proof;
pub mod track;
