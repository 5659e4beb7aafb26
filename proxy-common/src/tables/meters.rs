//! The door to the counters.

use crate::{
    abi::{BackendId, ServiceId},
    reason::Reason,
};

/// What is counted.
pub trait Meters {
    fn count_reason(&self, hook: u32, reason: Reason);
    /// Counts a packet of `bytes` to (`reply`: from) a backend.
    fn count_packet(&self, backend: BackendId, bytes: u32, reply: bool);
    fn count_connection(&self, service: ServiceId, backend: BackendId);
    fn count_refused(&self, service: ServiceId);
    fn count_dropped(&self, service: ServiceId);
    /// Counts a first packet that waits for an endpoint.
    fn count_held(&self, service: ServiceId);
}
