//! The door to the kernel's routing, and to this node's addresses.

use crate::{
    abi::{IfIndex, LocalAddr, Macs, Route},
    addr::Family,
};

/// The way out for one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Hop {
    pub ifindex: IfIndex,
    /// The Ethernet addresses to leave with, if `resolved`.
    pub macs: Macs,
    /// Largest layer-3 packet; 0 for no limit known here.
    pub mtu: u16,
    pub route: Route,
    /// Does the packet leave by another device than the one that the stack chose, which has counted its hops?
    pub aside: bool,
    /// Is the next hop's MAC known, or is none needed? Else the kernel is to resolve it.
    pub resolved: bool,
}

impl Hop {
    /// On to the next layer.
    pub const STACK: Self = Self {
        ifindex: IfIndex::NONE,
        macs: Macs::NONE,
        mtu: 0,
        route: Route::Stack,
        aside: false,
        resolved: false,
    };
}

/// What the kernel's routing says of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fib {
    /// Route and next hop are known.
    Hop {
        ifindex: IfIndex,
        macs: Macs,
        mtu: u16,
    },
    /// The route is known, the next hop's MAC is not.
    Unresolved { ifindex: IfIndex, mtu: u16 },
    /// No route that forwards there.
    None,
}

/// Routing of one family.
pub trait Routes<F: Family> {
    /// Flags of a local address; `None` if it is not one of this node's.
    fn local_addr(&self, addr: &F::Addr) -> Option<LocalAddr>;
    /// The route from this node to `dst` for a packet from `src`.
    fn fib(&self, src: &F::Addr, dst: &F::Addr) -> Fib;
    /// Packets go where the last look-up led: the next hop's neighbour entry is to be kept alive.
    fn note_next_hop(&self);
    /// The source address that the kernel would choose towards `dst`, where it tells ([`crate::abi::ConfigFlags::FIB_SOURCE`]).
    fn source(&self, dst: &F::Addr) -> Option<F::Addr>;
}
