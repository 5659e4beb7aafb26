//! The door to flows, and to what is kept beside them.

use crate::{
    abi::{Flow, FlowKey, FragmentKey, FragmentPorts, Share, Tuple},
    addr::Family,
    tables::routes::Hop,
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

    /// The flow where it lies, for who needs each of its words once and at another time: a copy of all of them would be spilled to the
    /// stack. Another CPU may renew its hints meanwhile.
    #[inline(always)]
    pub fn peek(&self) -> &Flow<A> {
        // SAFETY: as in `get`. Every word is plain data for which any value is valid, and is read on its own.
        unsafe { &*self.0.get() }
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

    /// Notes what the sender of this direction has shown; see [`crate::flow::proof`].
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

/// Flows of one family, and what is kept beside them.
pub trait Flows<F: Family> {
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
    /// Has a process of this node a connection of its own to whose socket a packet with this tuple would go?
    fn has_socket(&self, tuple: &Tuple<F::Addr>, proto: u8) -> bool;
    /// What the source has begun and nobody answered.
    fn share(&self, source: &F::Addr) -> Option<&ShareCell>;
    fn put_share(&self, source: &F::Addr, share: &Share);
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentPorts>;
    fn put_fragment(&self, key: &FragmentKey<F::Addr>, ports: &FragmentPorts);
    /// Is there a fragment of the same datagram that waits for its first one?
    fn is_held(&self, key: &FragmentKey<F::Addr>) -> bool;
}
