//! Counters, summed over CPUs.

use anyhow::{Context, Result};
use proxy_common::{
    abi::{BackendId, Counter, ServiceCounter, ServiceId, names},
    edge::hook::Hook,
    reason::Reason,
};

use super::Maps;

impl Maps {
    /// How often `reason` was met at `hook`.
    pub fn reason_count(&self, hook: &Hook, reason: Reason) -> Result<u64> {
        let index = hook.index * Reason::COUNT + reason as u32;
        let counts = self.reasons.get(&index, 0).context(names::REASONS)?;
        Ok(counts.iter().sum())
    }

    pub fn service_count(&self, id: ServiceId) -> Result<ServiceCounter> {
        let of_cpus = self
            .service_counts
            .get(&id.0, 0)
            .with_context(|| format!("{}[{id}]", names::SERVICE_COUNTERS))?;
        Ok(of_service(&of_cpus))
    }

    /// First packets of a service that were held until there is an endpoint.
    pub fn service_held(&self, id: ServiceId) -> Result<u64> {
        let of_cpus = self.service_held.get(&id.0, 0);
        let of_cpus = of_cpus.with_context(|| format!("{}[{id}]", names::SERVICE_HELD))?;
        Ok(of_cpus.iter().sum())
    }

    /// The same of all services whose ids are below `end`.
    pub fn service_held_below(&self, end: u32) -> Result<Vec<u64>> {
        let sum = |of_cpus: &[u64]| of_cpus.iter().sum();
        let held = self.service_held.sums(end, sum);
        held.context(names::SERVICE_HELD)
    }

    pub fn backend_count(&self, id: BackendId) -> Result<Counter> {
        let of_cpus = self
            .backend_counts
            .get(&id.0, 0)
            .with_context(|| format!("{}[{id}]", names::BACKEND_COUNTERS))?;
        Ok(of_backend(&of_cpus))
    }

    /// Of all services whose ids are below `end`.
    pub fn service_counts_below(&self, end: u32) -> Result<Vec<ServiceCounter>> {
        let counts = self.service_counts.sums(end, of_service);
        counts.context(names::SERVICE_COUNTERS)
    }

    /// Of all backends whose ids are below `end`.
    pub fn backend_counts_below(&self, end: u32) -> Result<Vec<Counter>> {
        let counts = self.backend_counts.sums(end, of_backend);
        counts.context(names::BACKEND_COUNTERS)
    }
}

fn of_service(of_cpus: &[ServiceCounter]) -> ServiceCounter {
    of_cpus.iter().fold(ServiceCounter::default(), |sum, one| {
        let ServiceCounter {
            connections,
            refused,
            dropped,
        } = *one;
        ServiceCounter {
            connections: sum.connections + connections,
            refused: sum.refused + refused,
            dropped: sum.dropped + dropped,
        }
    })
}

fn of_backend(of_cpus: &[Counter]) -> Counter {
    of_cpus.iter().fold(Counter::default(), |sum, one| {
        let Counter {
            packets,
            bytes,
            reply_packets,
            reply_bytes,
            connections,
        } = *one;
        Counter {
            packets: sum.packets + packets,
            bytes: sum.bytes + bytes,
            reply_packets: sum.reply_packets + reply_packets,
            reply_bytes: sum.reply_bytes + reply_bytes,
            connections: sum.connections + connections,
        }
    })
}
