//! The planner against a machine that does its operations one by one, and a naive model of what should come out.

mod cases;
mod machine;
mod naive;
mod properties;
mod room;
mod stale;
mod tenants;
mod world;

use std::time::{Duration, Instant};

use super::*;

const ROOM: Room = Room {
    services: 256,
    backends: 1024,
};
/// Of one namespace alone; tables that do not grow.
const LIMITS: Limits = Limits {
    room: ROOM,
    namespace_share: 100,
};
const HZ: u32 = 250;

/// Longer than anything that was let go takes to become free.
const SETTLED: Duration = Duration::from_secs(60);
