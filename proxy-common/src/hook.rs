//! Where a program is attached, as far as decisions depend on it. Every hook is a constant, so that what does
//! not apply to it is compiled out.

use crate::abi::Dir;

/// What the device at the hook leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// Out of the node: a NIC or a tunnel.
    Uplink,
    /// A pod, by its host-side interface.
    Workload,
    /// The node itself.
    Loopback,
}

/// Who the client of a new flow is, judged by the hook that first sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    Outside,
    Pod,
    /// A process on this node, or whatever the node forwards from a device without hooks.
    Node,
}

/// One attachment point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Index in the reason counters.
    pub index: u32,
    pub xdp: bool,
    pub edge: Edge,
    pub dir: Dir,
    pub name: &'static str,
}

impl Hook {
    pub const XDP_UPLINK: Self = Self {
        index: 0,
        xdp: true,
        edge: Edge::Uplink,
        dir: Dir::In,
        name: "xdp_uplink",
    };
    pub const TC_UPLINK_IN: Self = Self {
        index: 1,
        xdp: false,
        edge: Edge::Uplink,
        dir: Dir::In,
        name: "tc_uplink_in",
    };
    pub const TC_UPLINK_OUT: Self = Self {
        index: 2,
        xdp: false,
        edge: Edge::Uplink,
        dir: Dir::Out,
        name: "tc_uplink_out",
    };
    pub const TC_WORKLOAD_IN: Self = Self {
        index: 3,
        xdp: false,
        edge: Edge::Workload,
        dir: Dir::In,
        name: "tc_workload_in",
    };
    pub const TC_WORKLOAD_OUT: Self = Self {
        index: 4,
        xdp: false,
        edge: Edge::Workload,
        dir: Dir::Out,
        name: "tc_workload_out",
    };
    pub const TC_LOOPBACK_OUT: Self = Self {
        index: 5,
        xdp: false,
        edge: Edge::Loopback,
        dir: Dir::Out,
        name: "tc_loopback_out",
    };

    /// All hooks, by index.
    pub const ALL: [Self; 6] = [
        Self::XDP_UPLINK,
        Self::TC_UPLINK_IN,
        Self::TC_UPLINK_OUT,
        Self::TC_WORKLOAD_IN,
        Self::TC_WORKLOAD_OUT,
        Self::TC_LOOPBACK_OUT,
    ];

    /// Whose new flows begin here. `None`: only known flows are restored.
    #[inline(always)]
    pub const fn client(&self) -> Option<Client> {
        match (self.edge, self.dir) {
            (Edge::Uplink, Dir::In) => Some(Client::Outside),
            (Edge::Workload, Dir::In) => Some(Client::Pod),
            (Edge::Uplink | Edge::Loopback, Dir::Out) => Some(Client::Node),
            (Edge::Workload, Dir::Out) | (Edge::Loopback, Dir::In) => None,
        }
    }
}
