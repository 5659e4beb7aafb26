//! The map ABI: what the agent writes and the programs read, and the flows that the programs keep.
//!
//! Every type here is `repr(C)`, has no padding byte in a key (the kernel hashes raw bytes), and is pinned by
//! the compile-time assertions beside it. A change of any layout is a change of [`VERSION`], which is part of
//! the pin directory's name.

pub mod backend;
pub mod config;
pub mod counters;
pub mod device;
pub mod flow;
pub mod frontend;
pub mod gate;
pub mod service;

pub use crate::addr::Macs;
pub use backend::*;
pub use config::*;
pub use counters::*;
pub use device::*;
pub use flow::*;
pub use frontend::*;
pub use service::*;

/// Version of the map ABI; the pin directory carries it. Since when a map has its layout stands beside its shape in the agent.
pub const VERSION: u32 = 5;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Names of the maps, as they stand in the object and under the pin directory. `_4`/`_6` are the families.
pub mod names {
    pub const CONFIG: &str = "CONFIG";
    pub const GATE: &str = "GATE";
    pub const DEVICES: &str = "DEVICES";
    pub const SERVICES: &str = "SERVICES";
    pub const SLOTS: &str = "SLOTS";
    pub const REASONS: &str = "REASONS";
    pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTS";
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTS";
    pub const PORT_CURSOR: &str = "PORT_CURSOR";
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// Program arrays of the slow path: index [`super::slow_index`].
    pub const SLOW_XDP: &str = "SLOW_XDP";
    pub const SLOW_TC: &str = "SLOW_TC";
    pub const FRONTENDS: [&str; 2] = ["FRONTENDS_4", "FRONTENDS_6"];
    pub const BACKENDS: [&str; 2] = ["BACKENDS_4", "BACKENDS_6"];
    pub const LOCAL_ADDRS: [&str; 2] = ["LOCAL_ADDRS_4", "LOCAL_ADDRS_6"];
    pub const FLOWS: [&str; 2] = ["FLOWS_4", "FLOWS_6"];
    pub const PENDING: [&str; 2] = ["PENDING_4", "PENDING_6"];
    pub const AFFINITY: [&str; 2] = ["AFFINITY_4", "AFFINITY_6"];
    pub const SOURCE_RANGES: [&str; 2] = ["RANGES_4", "RANGES_6"];
    pub const SHARES: [&str; 2] = ["SHARES_4", "SHARES_6"];
    pub const FRAGMENTS: [&str; 2] = ["FRAGMENTS_4", "FRAGMENTS_6"];
}

/// Index of a slow-path program in its program array; below [`SLOW_PROGRAMS`].
pub const fn slow_index(dir: Dir, is_v6: bool) -> u32 {
    dir as u32 * 2 + is_v6 as u32
}

/// Index of the program that holds fragments, and lets them go, in TC's program array.
pub const FRAGMENT_INDEX: u32 = 4;

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
        NextHop,
        Share,
    );
}
