//! The door to flows, and to what is kept beside them.

use crate::{
    abi::{
        Closed, Ends, Epoch, Flow, FlowKey, FragmentKey, FragmentPorts, IfIndex, Jiffies, Share,
        Tuple, UDP,
    },
    addr::Family,
    tables::routes::Hop,
};
use core::cell::{Cell, UnsafeCell};

/// The flow tables. What may go for another flow and what may not are never in one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// New flows. For another one goes the one that was not looked up the longest: a flood of new flows takes room from its like alone.
    Pending,
    /// Confirmed TCP connections and SCTP associations. None goes for another: where there is no room, no new one is confirmed.
    Connections,
    /// Confirmed flows of datagrams. For another one goes the one that was not looked up the longest.
    Datagrams,
}

impl Table {
    /// Where the confirmed flows of a protocol stand.
    #[inline(always)]
    pub const fn confirmed(proto: u8) -> Self {
        if proto == UDP {
            Self::Datagrams
        } else {
            Self::Connections
        }
    }
}

/// What may stand under the key of a flow that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// Nothing: else the flow is not stored.
    New,
    /// Anything: it is replaced.
    Over,
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
    pub fn touch(&self, now: Jiffies) {
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
    pub fn come_by(&self, ifindex: IfIndex) {
        // SAFETY: as in `touch`.
        unsafe { (*self.0.get()).peer_ifindex = ifindex }
    }

    /// Notes by which device this direction's packets leave.
    #[inline(always)]
    pub fn leave_by(&self, ifindex: IfIndex) {
        // SAFETY: as in `touch`.
        unsafe { (*self.0.get()).ifindex = ifindex }
    }

    /// Stores egress hints: none hold while they are written, and the epoch comes last.
    ///
    /// A reader on another CPU that asks [`hints_hold`] before it reads them takes them when they are whole. That holds where stores and loads of a
    /// CPU are seen in their order (x86-64, s390x). The JIT of arm64 makes plain instructions of these, which may be seen in any order;
    /// BPF's ordered ones (a value-returning atomic is a full barrier there) came with 5.12, release and acquire with 6.15, and 5.10 has
    /// neither. There a packet that crosses another CPU's write of the hints may leave with hints in part of before, for as long as
    /// a store takes to be seen: it is lost, and sent again.
    #[inline(always)]
    pub fn set_hints(&self, hop: &Hop, epoch: Epoch) {
        let flow = self.0.get();
        // SAFETY: as in `get`; aligned stores.
        unsafe {
            (*flow).epoch = Epoch::NONE;
            keep_order();
            (*flow).ifindex = hop.ifindex;
            (*flow).macs = hop.macs;
            (*flow).mtu = hop.mtu;
            keep_order();
            (*flow).epoch = epoch;
        }
    }
}

/// Do the hints of a flow hold? The compiler reads none of them before their epoch.
#[inline(always)]
pub fn hints_hold<A>(flow: &Flow<A>, epoch: Epoch) -> bool {
    let hold = flow.epoch == epoch;
    keep_order();
    hold
}

/// The compiler moves no load or store of memory across this. It is no instruction.
#[inline(always)]
fn keep_order() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::AcqRel);
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

/// A place of a queue. Another CPU may write it at the same time: then its words are of two connections, and so of none.
#[repr(transparent)]
pub struct ClosedCell<A>(UnsafeCell<Closed<A>>);

impl<A: Copy> ClosedCell<A> {
    pub const fn new(closed: Closed<A>) -> Self {
        Self(UnsafeCell::new(closed))
    }

    #[inline(always)]
    pub fn peek(&self) -> &Closed<A> {
        // SAFETY: the cell is valid for the life of `&self`, and any value is valid for plain data.
        unsafe { &*self.0.get() }
    }

    #[inline(always)]
    pub fn set(&self, key: &FlowKey<A>, since: Jiffies) {
        let closed = self.0.get();
        // SAFETY: as in `peek`; aligned stores.
        unsafe {
            (*closed).key = *key;
            (*closed).since = since;
        }
    }
}

/// [`Ends`] in their map. Another CPU may write a number at the same time.
#[derive(Default, Debug)]
#[repr(C)]
pub struct EndsCell {
    pub oldest: Cell<u32>,
    pub next: Cell<u32>,
    pub other: Cell<u32>,
    spare: [u32; 13],
}

const _: () = assert!(size_of::<EndsCell>() == size_of::<Ends>());

/// Counts on, and wraps.
#[inline(always)]
pub fn count_on(number: &Cell<u32>) {
    number.set(number.get().wrapping_add(1));
}

/// The queues of closed connections.
#[derive(Clone, Copy, Debug)]
pub struct Queues {
    /// This CPU's.
    pub own: u32,
    /// How many there are; never 0.
    pub count: u32,
    /// Places of each; never 0.
    pub room: u32,
}

/// Flows of one family, and what is kept beside them.
pub trait Flows<F: Family> {
    fn flow(&self, table: Table, key: &FlowKey<F::Addr>) -> Option<&FlowCell<F::Addr>>;
    /// Stores a flow. `false`: not stored.
    fn put_flow(
        &self,
        table: Table,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        put: Put,
    ) -> bool;
    fn delete_flow(&self, table: Table, key: &FlowKey<F::Addr>);
    /// The queues of closed connections: one for each CPU.
    fn queues(&self) -> Queues;
    /// Where a queue begins and ends. Of other CPUs' queues an end may be written at the same time.
    fn closed_ends(&self, queue: u32) -> Option<&EndsCell>;
    /// A place, of those of all queues.
    fn closed(&self, place: u32) -> Option<&ClosedCell<F::Addr>>;
    /// When there was last no room for a connection that was to be confirmed; 0 for never.
    fn full_since(&self) -> Jiffies;
    fn note_full(&self, now: Jiffies);
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
