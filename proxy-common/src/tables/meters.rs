//! The door to the counters.

use crate::reason::Reason;

/// What is counted.
pub trait Meters {
    fn count_reason(&self, hook: u32, reason: Reason);
    /// Counts a packet of `bytes` to (`reply`: from) a backend.
    fn count_packet(&self, backend: u32, bytes: u32, reply: bool);
    fn count_connection(&self, service: u32, backend: u32);
    fn count_refused(&self, service: u32);
    fn count_dropped(&self, service: u32);
}
