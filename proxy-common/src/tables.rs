//! The maps, as the core sees them.
//!
//! [`Shared`] is what both families use, [`Tables`] what each has for itself. The eBPF half implements them
//! with BPF maps and helpers, tests with ordinary collections.

use crate::{
    abi::{
        Affinity, AffinityKey, Backend, Config, Device, Flow, FlowKey, FragmentKey, FragmentPorts,
        FrontendKey, FrontendRef, Macs, RangeKey, Service, Share, Tuple, gate,
    },
    addr::Family,
    path::Hop,
    reason::Reason,
};
use core::cell::UnsafeCell;

/// The two flow tables. New flows have a table and so a budget of their own: a flood of them evicts only
/// other new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Flows that both ends have confirmed.
    Confirmed,
    /// New flows.
    Pending,
}

/// A flow in its table. Other CPUs may write it at the same time, whole words at once.
#[repr(transparent)]
pub struct FlowCell<A>(UnsafeCell<Flow<A>>);

impl<A: Copy> FlowCell<A> {
    pub fn new(flow: Flow<A>) -> Self {
        Self(UnsafeCell::new(flow))
    }

    #[inline(always)]
    pub fn get(&self) -> Flow<A> {
        // SAFETY: the cell is valid for the life of `&self`, and `Flow` is plain data.
        unsafe { *self.0.get() }
    }

    #[inline(always)]
    pub fn touch(&self, now: u32) {
        // SAFETY: as in `get`; an aligned 32-bit store.
        unsafe { (*self.0.get()).last_seen = now }
    }

    #[inline(always)]
    pub fn mark(&self, state: u8) {
        // SAFETY: as in `get`; a one-byte store.
        unsafe { (*self.0.get()).state |= state }
    }

    #[inline(always)]
    pub fn unmark(&self, state: u8) {
        // SAFETY: as in `mark`.
        unsafe { (*self.0.get()).state &= !state }
    }

    /// Notes what the sender of this direction has shown; see [`crate::proof`].
    #[inline(always)]
    pub fn show(&self, proof: u16) {
        // SAFETY: as in `get`; an aligned 16-bit store.
        unsafe { (*self.0.get()).proof = proof }
    }

    /// Notes by which device this direction's packets come in.
    #[inline(always)]
    pub fn come_by(&self, ifindex: u32) {
        // SAFETY: as in `touch`.
        unsafe { (*self.0.get()).peer_ifindex = ifindex }
    }

    /// Notes by which device this direction's packets leave.
    #[inline(always)]
    pub fn leave_by(&self, ifindex: u32) {
        // SAFETY: as in `touch`.
        unsafe { (*self.0.get()).ifindex = ifindex }
    }

    /// Stores egress hints, the epoch last: a reader on another CPU takes them only when they are whole.
    #[inline(always)]
    pub fn set_hints(&self, hop: &Hop, epoch: u32) {
        let flow = self.0.get();
        // SAFETY: as in `get`.
        unsafe {
            (*flow).ifindex = hop.ifindex;
            (*flow).macs = hop.macs;
            (*flow).mtu = hop.mtu;
            core::ptr::write_volatile(&raw mut (*flow).epoch, epoch);
        }
    }
}

/// A source's share in its table. Other CPUs may write it at the same time: a count may get lost.
#[repr(transparent)]
pub struct ShareCell(UnsafeCell<Share>);

impl ShareCell {
    pub fn new(share: Share) -> Self {
        Self(UnsafeCell::new(share))
    }

    #[inline(always)]
    pub fn get(&self) -> Share {
        // SAFETY: the cell is valid for the life of `&self`, and `Share` is plain data.
        unsafe { *self.0.get() }
    }

    #[inline(always)]
    pub fn set(&self, share: Share) {
        // SAFETY: as in `get`; two aligned 32-bit stores.
        unsafe { *self.0.get() = share }
    }
}

/// What the kernel's routing says of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fib {
    /// Route and next hop are known.
    Hop { ifindex: u32, macs: Macs, mtu: u16 },
    /// The route is known, the next hop's MAC is not.
    Unresolved { ifindex: u32, mtu: u16 },
    /// No route that forwards there.
    None,
}

/// Maps and facts that both families share.
pub trait Shared {
    fn config(&self) -> Option<&Config>;
    fn gate(&self, bit: gate::Bit) -> bool;
    /// Low 32 bits of jiffies.
    fn now(&self) -> u32;
    fn service(&self, id: u32) -> Option<&Service>;
    fn slot(&self, index: u32) -> Option<u32>;
    fn device(&self, ifindex: u32) -> Option<&Device>;
    /// The device at the hook.
    fn ifindex(&self) -> u32;
    /// The next number of the node-wide round for source ports.
    fn next_port(&self) -> u32;
    fn count_reason(&self, hook: u32, reason: Reason);
    /// Counts a packet of `bytes` to (`reply`: from) a backend.
    fn count_packet(&self, backend: u32, bytes: u32, reply: bool);
    fn count_connection(&self, service: u32, backend: u32);
    fn count_refused(&self, service: u32);
    fn count_dropped(&self, service: u32);
}

/// Maps of one family.
pub trait Tables<F: Family>: Shared {
    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<FrontendRef>;
    /// Flags of a local address; `None` if it is not one of this node's.
    fn local_addr(&self, addr: &F::Addr) -> Option<u32>;
    fn backend(&self, id: u32) -> Option<&Backend<F::Addr>>;
    fn flow(&self, table: Table, key: &FlowKey<F::Addr>) -> Option<&FlowCell<F::Addr>>;
    /// Stores a flow; with `fresh`, only where there is none under the key. `false`: not stored.
    fn put_flow(
        &self,
        table: Table,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        fresh: bool,
    ) -> bool;
    fn delete_flow(&self, table: Table, key: &FlowKey<F::Addr>);
    fn share(&self, source: &F::Addr) -> Option<&ShareCell>;
    fn put_share(&self, source: &F::Addr, share: &Share);
    fn affinity(&self, key: &AffinityKey<F::Addr>) -> Option<Affinity>;
    fn set_affinity(&self, key: &AffinityKey<F::Addr>, value: &Affinity);
    fn in_ranges(&self, key: RangeKey<F::Addr>) -> bool;
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentPorts>;
    fn put_fragment(&self, key: &FragmentKey<F::Addr>, ports: &FragmentPorts);
    /// Is there a fragment of the same datagram that waits for its first one?
    fn is_held(&self, key: &FragmentKey<F::Addr>) -> bool;
    /// Has a process of this node a connection of its own to whose socket a packet with this tuple would go?
    fn has_socket(&self, tuple: &Tuple<F::Addr>, proto: u8) -> bool;
    /// The route from this node to `dst` for a packet from `src`.
    fn fib(&self, src: &F::Addr, dst: &F::Addr) -> Fib;
    /// Packets go where the last look-up led: the next hop's neighbour entry is to be kept alive.
    fn note_next_hop(&self);
    /// The source address that the kernel would choose towards `dst`, where it tells ([`crate::abi::config_flags::FIB_SOURCE`]).
    fn source(&self, dst: &F::Addr) -> Option<F::Addr>;
}
