//! What can change while the programs run.

use bitflags::bitflags;

use super::Epoch;

/// The one element of the configuration array. All times are in jiffies (the agent knows the kernel's HZ).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Config {
    /// Egress hints of flows hold while this equals their epoch; bumped on route, neighbour and link changes.
    /// Never [`Epoch::NONE`].
    pub epoch: Epoch,
    /// Seed of the hash that chooses a slot.
    pub seed: u32,
    /// Coarse step at which a flow's last-seen time is written and its other direction repaired; [`Self::STILL`] for never.
    pub refresh: u32,
    /// A TCP or SCTP flow that has ended gives up its reply tuple after this time.
    pub tcp_closed: u32,
    /// The same for one of which one end has sent its last, and the other goes on.
    pub tcp_half: u32,
    /// The same for an idle, open one.
    pub tcp_idle: u32,
    /// The same for a UDP flow; a later datagram starts a new flow.
    pub udp_idle: u32,
    /// A flow that waits for its first answer gives up its reply tuple after this time.
    pub unanswered: u32,
    /// Flows that one source may have waiting for their first answer; 0 for any number.
    pub share: u32,
    pub flags: ConfigFlags,
    /// First port that a full proxy takes when the client's own is not free, host byte order.
    pub port_first: u16,
    /// Last such port.
    pub port_last: u16,
}

impl Config {
    /// Value of [`Self::refresh`] under which flows stay in the tables that they are in, while the agent moves them to others: none is
    /// confirmed, and none is repaired.
    pub const STILL: u32 = u32::MAX;

    /// The defaults for a kernel with `hz` jiffies per second. Times are those of conntrack under kube-proxy.
    pub const fn for_hz(hz: u32, seed: u32) -> Self {
        Self {
            epoch: Epoch(1),
            seed,
            refresh: hz,
            tcp_closed: 60 * hz,
            tcp_half: 3_600 * hz,
            tcp_idle: 86_400 * hz,
            udp_idle: 120 * hz,
            unanswered: 10 * hz,
            share: 0,
            flags: ConfigFlags::empty(),
            port_first: 1024,
            port_last: 65_535,
        }
    }
}

bitflags! {
    /// What the programs may rely on, and what the node asks of them.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    #[repr(transparent)]
    pub struct ConfigFlags: u32 {
        /// `bpf_fib_lookup` tells the source address that the kernel would choose (`BPF_FIB_LOOKUP_SRC`, kernel 6.7, dab4e1f06cab).
        const FIB_SOURCE = 1;
        /// A TCP segment of no known connection to a service address that is not the node's own is answered by a reset. Not set as long as
        /// the kernel's connection tracking may know the connection: made under kube-proxy, it goes on there.
        const RESET_STRANGERS = 1 << 1;
        /// What a workload sends from a backend's address is dropped where the device does not take the source, also where the packet is of no
        /// service: it may be made to be restored, behind the stack, as the answer of that backend. The stack has no `rp_filter` for IPv6.
        const WORKLOADS_STRICT = 1 << 2;
    }
}

primitive!(ConfigFlags = 1 u32 as "u32");
layout!(Config {
    epoch,
    seed,
    refresh,
    tcp_closed,
    tcp_half,
    tcp_idle,
    udp_idle,
    unanswered,
    share,
    flags,
    port_first,
    port_last,
});

const _: () = assert!(size_of::<Config>() == 44);
