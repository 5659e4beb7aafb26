//! The map ABI: what the agent writes and the programs read, and the flows that the programs keep.
//!
//! Every type here is `repr(C)` and has no padding byte (the kernel hashes raw bytes of keys). [`map`] is the table of all maps. A
//! change of any layout is a change of [`VERSION`], which is part of the pin directory's name, and of the map's own `since`: the
//! fingerprints in `fingerprint` hold it to that.

#[macro_use]
pub mod layout;

pub mod backend;
pub mod config;
pub mod counters;
pub mod device;
#[cfg(test)]
mod fingerprint;
pub mod flow;
pub mod frontend;
pub mod gate;
pub mod map;
pub mod number;
pub mod service;

pub use crate::addr::Macs;
pub use backend::*;
pub use config::*;
pub use counters::*;
pub use device::*;
pub use flow::*;
pub use frontend::*;
pub use number::*;
pub use service::*;

/// Version of the map ABI; the pin directory carries it. Since when a map has its layout stands in its row of [`map`].
pub const VERSION: u32 = 7;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Names of the maps, as they stand in the object and under the pin directory. `_4`/`_6` are the families.
pub mod names {
    use super::map;

    pub const CONFIG: &str = map::CONFIG.name;
    pub const GATE: &str = map::GATE.name;
    pub const DEVICES: &str = map::DEVICES.name;
    pub const SERVICES: &str = map::SERVICES.name;
    pub const SLOTS: &str = map::SLOTS.name;
    pub const REASONS: &str = map::REASONS.name;
    pub const SERVICE_COUNTERS: &str = map::SERVICE_COUNTS.name;
    pub const SERVICE_HELD: &str = map::SERVICE_HELD.name;
    pub const BACKEND_COUNTERS: &str = map::BACKEND_COUNTS.name;
    pub const NEXT_HOPS: &str = map::NEXT_HOPS.name;
    pub const FRONTENDS: [&str; 2] = [map::V4.frontends.name, map::V6.frontends.name];
    pub const BACKENDS: [&str; 2] = [map::V4.backends.name, map::V6.backends.name];
    pub const LOCAL_ADDRS: [&str; 2] = [map::V4.local_addrs.name, map::V6.local_addrs.name];
    pub const FLOWS: [&str; 2] = [map::V4.flows.name, map::V6.flows.name];
    pub const DATAGRAMS: [&str; 2] = [map::V4.datagrams.name, map::V6.datagrams.name];
    pub const PENDING: [&str; 2] = [map::V4.pending.name, map::V6.pending.name];
    pub const AFFINITY: [&str; 2] = [map::V4.affinity.name, map::V6.affinity.name];
    pub const SOURCE_RANGES: [&str; 2] = [map::V4.ranges.name, map::V6.ranges.name];
    pub const FRAGMENTS: [&str; 2] = [map::V4.fragments.name, map::V6.fragments.name];
}

/// Index of a slow-path program in its program array; below [`SLOW_PROGRAMS`].
pub const fn slow_index(dir: Dir, is_v6: bool) -> u32 {
    dir as u32 * 2 + is_v6 as u32
}

/// Index of the program that holds fragments, and lets them go, in TC's program array.
pub const FRAGMENT_INDEX: u32 = 4;

/// How many hooks there are, each with counters of its own.
pub const HOOKS: u32 = 6;

/// Size of a program array of the slow path: one for each direction and family, and the one for fragments.
pub const SLOW_PROGRAMS: u32 = 5;

/// Marks ABI types as plain old data for aya's user half.
#[cfg(feature = "user")]
mod pod {
    use super::*;
    use crate::addr::{Ip4, Ip6};

    macro_rules! pod {
        ($($t:ty),+ $(,)?) => {$(
            // SAFETY: `repr(C)`, `Copy`, valid for every bit pattern, and without padding (asserted by size).
            unsafe impl aya::Pod for $t {}
        )+};
    }
    pod!(
        Ip4,
        Ip6,
        Config,
        Device,
        Service,
        Counter,
        ServiceCounter,
        FrontendKey<Ip4>,
        FrontendKey<Ip6>,
        Backend<Ip4>,
        Backend<Ip6>,
        FlowKey<Ip4>,
        FlowKey<Ip6>,
        Flow<Ip4>,
        Flow<Ip6>,
        AffinityKey<Ip4>,
        AffinityKey<Ip6>,
        Affinity,
        RangeKey<Ip4>,
        RangeKey<Ip6>,
        FragmentKey<Ip4>,
        FragmentKey<Ip6>,
        FragmentPorts,
        LocalAddr,
        NextHop,
        Share,
    );
}
