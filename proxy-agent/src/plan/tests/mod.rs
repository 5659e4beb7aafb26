//! The planner against a machine that does its operations one by one, and a naive model of what should come out.

mod cases;
mod machine;
mod naive;
mod properties;
mod world;

use std::time::{Duration, Instant};

use super::*;

const LIMITS: Limits = Limits {
    services: 256,
    backends: 1024,
    slots: 4096,
};
const HZ: u32 = 250;

/// Longer than anything that was let go takes to become free.
const SETTLED: Duration = Duration::from_secs(60);
