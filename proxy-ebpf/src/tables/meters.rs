//! The counters.

use super::Kernel;
use crate::maps;
use proxy_common::{
    abi::{BackendId, ServiceId},
    reason::Reason,
    tables::Meters,
};

/// Adds to a counter of this CPU.
macro_rules! add {
    ($map:expr, $index:expr, $($field:ident)? += $n:expr) => {
        if let Some(counter) = $map.get_ptr_mut($index) {
            // SAFETY: the pointer is this CPU's element, which nothing else writes while the program runs.
            unsafe { (*counter)$(.$field)? += $n }
        }
    };
}

impl Meters for Kernel {
    #[inline(always)]
    fn count_reason(&self, hook: u32, reason: Reason) {
        add!(maps::REASONS, hook * Reason::COUNT + reason as u32, += 1);
    }

    #[inline(always)]
    fn count_packet(&self, backend: BackendId, bytes: u32, reply: bool) {
        if let Some(c) = maps::BACKEND_COUNTS.get_ptr_mut(backend.0) {
            // SAFETY: as in `add`.
            unsafe {
                if reply {
                    (*c).reply_packets += 1;
                    (*c).reply_bytes += bytes as u64;
                } else {
                    (*c).packets += 1;
                    (*c).bytes += bytes as u64;
                }
            }
        }
    }

    #[inline(always)]
    fn count_connection(&self, service: ServiceId, backend: BackendId) {
        add!(maps::SERVICE_COUNTS, service.0, connections += 1);
        add!(maps::BACKEND_COUNTS, backend.0, connections += 1);
    }

    #[inline(always)]
    fn count_refused(&self, service: ServiceId) {
        add!(maps::SERVICE_COUNTS, service.0, refused += 1);
    }

    #[inline(always)]
    fn count_dropped(&self, service: ServiceId) {
        add!(maps::SERVICE_COUNTS, service.0, dropped += 1);
    }

    #[inline(always)]
    fn count_held(&self, service: ServiceId) {
        add!(maps::SERVICE_HELD, service.0, += 1);
    }
}
