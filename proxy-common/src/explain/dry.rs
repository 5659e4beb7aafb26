//! The doors of the tables, for reading alone.
//!
//! What the core stores in a run it does not ask for again in the same run, but for two cases, which come out alike either way: a
//! cell that it wrote (whose tuples, which are what it then compares, do not change), and an entry that it removed and whose key it claims
//! anew (which is then found to be the same connection's).

use crate::{
    abi::{
        Affinity, AffinityKey, Backend, BackendId, Config, Device, Flow, FlowKey, FragmentKey,
        FragmentPorts, FrontendKey, FrontendRef, IfIndex, Jiffies, LocalAddr, RangeKey, Service,
        ServiceId, Share, Slot, Tuple, gate,
    },
    addr::Family,
    explain::trace::{Asked, FibTold, Trace},
    reason::Reason,
    tables::{
        ClosedCell, EndsCell, Fib, FlowCell, Flows, Meters, Node, Put, Queues, Routes, Services,
        ShareCell, Table,
    },
};

/// The node-wide round of source ports, to look at.
pub trait Cursor {
    /// What [`Node::next_port`] would give.
    fn port_cursor(&self) -> u32;
}

/// Tables that are read alone, and what was asked of them.
pub struct Dry<'a, T> {
    tables: &'a T,
    trace: &'a Trace,
}

impl<'a, T> Dry<'a, T> {
    #[inline(always)]
    pub const fn new(tables: &'a T, trace: &'a Trace) -> Self {
        Self { tables, trace }
    }
}

impl<T: Node + Cursor> Node for Dry<'_, T> {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        self.tables.config()
    }

    #[inline(always)]
    fn gate(&self, bit: gate::Bit) -> bool {
        let is_open = self.tables.gate(bit);
        let key = [bit.word, bit.mask as u32, (bit.mask >> 32) as u32];
        self.trace.asked(Asked::Gate, &key, is_open);
        is_open
    }

    #[inline(always)]
    fn now(&self) -> Jiffies {
        self.tables.now()
    }

    #[inline(always)]
    fn device(&self, ifindex: IfIndex) -> Option<&Device> {
        let device = self.tables.device(ifindex);
        self.trace.answered(Asked::Device, &ifindex, device);
        device
    }

    #[inline(always)]
    fn ifindex(&self) -> IfIndex {
        self.tables.ifindex()
    }

    #[inline(always)]
    fn next_port(&self) -> u32 {
        let next = self
            .tables
            .port_cursor()
            .wrapping_add(self.trace.next_port());
        self.trace.asked(Asked::NextPort, &next, true);
        next
    }
}

impl<T> Meters for Dry<'_, T> {
    #[inline(always)]
    fn count_reason(&self, hook: u32, reason: Reason) {
        self.trace
            .asked(Asked::Reason, &[hook, reason as u32], true);
    }

    #[inline(always)]
    fn count_packet(&self, backend: BackendId, bytes: u32, reply: bool) {
        self.trace
            .asked(Asked::Packet, &[backend.0, bytes, reply as u32], true);
    }

    #[inline(always)]
    fn count_connection(&self, service: ServiceId, backend: BackendId) {
        self.trace
            .asked(Asked::Connection, &[service.0, backend.0], true);
    }

    #[inline(always)]
    fn count_refused(&self, service: ServiceId) {
        self.trace.asked(Asked::Refused, &service, true);
    }

    #[inline(always)]
    fn count_dropped(&self, service: ServiceId) {
        self.trace.asked(Asked::Dropped, &service, true);
    }

    #[inline(always)]
    fn count_held(&self, service: ServiceId) {
        self.trace.asked(Asked::Dropped, &service, true);
    }
}

impl<F: Family, T: Services<F>> Services<F> for Dry<'_, T> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<FrontendRef> {
        let Some(found) = self.tables.frontend(key) else {
            self.trace.asked(Asked::Frontend, key, false);
            return None;
        };
        self.trace.found(Asked::Frontend, key, &found);
        Some(found)
    }

    #[inline(always)]
    fn service(&self, id: ServiceId) -> Option<&Service> {
        let found = self.tables.service(id);
        self.trace.answered(Asked::Service, &id, found);
        found
    }

    #[inline(always)]
    fn slot(&self, index: Slot) -> Option<BackendId> {
        let Some(found) = self.tables.slot(index) else {
            self.trace.asked(Asked::Slot, &index, false);
            return None;
        };
        self.trace.found(Asked::Slot, &index, &found);
        Some(found)
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&Backend<F::Addr>> {
        let found = self.tables.backend(id);
        self.trace.answered(Asked::Backend, &id, found);
        found
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey<F::Addr>) -> Option<Affinity> {
        let Some(found) = self.tables.affinity(key) else {
            self.trace.asked(Asked::Affinity, key, false);
            return None;
        };
        self.trace.found(Asked::Affinity, key, &found);
        Some(found)
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey<F::Addr>, value: &Affinity) {
        self.trace.found(Asked::SetAffinity, key, value);
    }

    #[inline(always)]
    fn in_ranges(&self, key: RangeKey<F::Addr>) -> bool {
        let is_in = self.tables.in_ranges(key);
        self.trace.asked(Asked::Ranges, &key, is_in);
        is_in
    }
}

impl<F: Family, T: Flows<F>> Flows<F> for Dry<'_, T> {
    #[inline(always)]
    fn flow(&self, table: Table, key: &FlowKey<F::Addr>) -> Option<&FlowCell<F::Addr>> {
        let asked = match table {
            Table::Connections => Asked::Connections,
            Table::Datagrams => Asked::Datagrams,
            Table::Pending => Asked::Pending,
        };
        let Some(cell) = self.tables.flow(table, key) else {
            self.trace.asked(asked, key, false);
            return None;
        };
        let flow = cell.peek();
        self.trace.found(asked, key, flow);
        let copy = self.trace.cell(flow);
        // SAFETY: `FlowCell` is a transparent cell over `Flow`; the trace outlives the tables that lend it.
        Some(unsafe { &*copy.cast() })
    }

    #[inline(always)]
    fn put_flow(
        &self,
        table: Table,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        put: Put,
    ) -> bool {
        let asked = match table {
            Table::Connections => Asked::PutConnections,
            Table::Datagrams => Asked::PutDatagrams,
            Table::Pending => Asked::PutPending,
        };
        let is_stored = put == Put::Over || self.tables.flow(table, key).is_none();
        if is_stored {
            self.trace.found(asked, key, flow);
        } else {
            self.trace.asked(asked, key, false);
        }
        is_stored
    }

    #[inline(always)]
    fn delete_flow(&self, table: Table, key: &FlowKey<F::Addr>) {
        let asked = match table {
            Table::Connections => Asked::DeleteConnections,
            Table::Datagrams => Asked::DeleteDatagrams,
            Table::Pending => Asked::DeletePending,
        };
        self.trace.asked(asked, key, true);
    }

    #[inline(always)]
    fn queues(&self) -> Queues {
        self.tables.queues()
    }

    /// Nothing is queued, and nothing leaves.
    #[inline(always)]
    fn closed_ends(&self, _: u32) -> Option<&EndsCell> {
        None
    }

    #[inline(always)]
    fn closed(&self, _: u32) -> Option<&ClosedCell<F::Addr>> {
        None
    }

    #[inline(always)]
    fn full_since(&self) -> Jiffies {
        self.tables.full_since()
    }

    #[inline(always)]
    fn note_full(&self, _: Jiffies) {}

    #[inline(always)]
    fn has_socket(&self, tuple: &Tuple<F::Addr>, proto: u8) -> bool {
        let has = self.tables.has_socket(tuple, proto);
        self.trace.asked(Asked::Socket, tuple, has);
        has
    }

    #[inline(always)]
    fn share(&self, source: &F::Addr) -> Option<&ShareCell> {
        let Some(cell) = self.tables.share(source) else {
            self.trace.asked(Asked::Share, source, false);
            return None;
        };
        let share = cell.get();
        self.trace.found(Asked::Share, source, &share);
        let copy = self.trace.cell(&share);
        // SAFETY: `ShareCell` is a transparent cell over `Share`; as for flows.
        Some(unsafe { &*copy.cast() })
    }

    #[inline(always)]
    fn put_share(&self, source: &F::Addr, share: &Share) {
        self.trace.found(Asked::PutShare, source, share);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentPorts> {
        self.tables.fragment(key)
    }

    #[inline(always)]
    fn put_fragment(&self, _: &FragmentKey<F::Addr>, _: &FragmentPorts) {}

    #[inline(always)]
    fn is_held(&self, key: &FragmentKey<F::Addr>) -> bool {
        self.tables.is_held(key)
    }
}

impl<F: Family, T: Routes<F>> Routes<F> for Dry<'_, T> {
    #[inline(always)]
    fn local_addr(&self, addr: &F::Addr) -> Option<LocalAddr> {
        let Some(found) = self.tables.local_addr(addr) else {
            self.trace.asked(Asked::LocalAddr, addr, false);
            return None;
        };
        self.trace.found(Asked::LocalAddr, addr, &found);
        Some(found)
    }

    #[inline(always)]
    fn fib(&self, src: &F::Addr, dst: &F::Addr) -> Fib {
        let found = self.tables.fib(src, dst);
        let told = FibTold::of(found);
        self.trace
            .answered(Asked::Fib, &[*src, *dst], told.as_ref());
        found
    }

    #[inline(always)]
    fn note_next_hop(&self) {
        self.trace.asked(Asked::NoteNextHop, &0_u32, true);
    }

    #[inline(always)]
    fn source(&self, dst: &F::Addr) -> Option<F::Addr> {
        let Some(found) = self.tables.source(dst) else {
            self.trace.asked(Asked::Source, dst, false);
            return None;
        };
        self.trace.found(Asked::Source, dst, &found);
        Some(found)
    }
}
