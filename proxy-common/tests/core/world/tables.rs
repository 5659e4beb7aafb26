//! The tables as ordinary collections, and the hooks' way of running the core on them.

use super::{net::Net, packet::Buffer};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, BackendId, Config, Counter, Device, Flow, FlowKey,
        FragmentKey, FragmentPorts, FrontendKey, FrontendRef, IfIndex, Jiffies, LocalAddr,
        RangeKey, Service, ServiceCounter, ServiceId, Share, Slot, Tuple, gate,
    },
    addr::{Addr, Family, V4, V6},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
        work::Work,
    },
    explain::Cursor,
    paths::{fast, slow},
    reason::Reason,
    tables::{
        self, ClosedCell, EndsCell, Fib, FlowCell, Meters, Node, Put, Queues, Routes, Services,
        ShareCell, Table,
    },
    wire::packet::Packet,
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
};

/// One flow table. Like the kernel's it replaces an element instead of writing over it. It makes room by evicting, the oldest first, or
/// has none.
pub struct Flows<A: Addr> {
    /// Cells are leaked: a reference outlives its removal, as RCU has it.
    cells: RefCell<HashMap<FlowKey<A>, &'static FlowCell<A>>>,
    order: RefCell<VecDeque<FlowKey<A>>>,
    pub capacity: usize,
    evicts: bool,
}

impl<A: Addr> Flows<A> {
    fn new(evicts: bool) -> Self {
        Self {
            cells: RefCell::default(),
            order: RefCell::default(),
            capacity: 1 << 16,
            evicts,
        }
    }

    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        Some(self.cells.borrow().get(key)?.get())
    }

    pub fn remove(&self, key: &FlowKey<A>) -> bool {
        self.cells.borrow_mut().remove(key).is_some()
    }

    pub fn keys(&self) -> Vec<FlowKey<A>> {
        self.cells.borrow().keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.cells.borrow().len()
    }

    fn put(&self, key: &FlowKey<A>, flow: &Flow<A>, put: Put) -> bool {
        let mut cells = self.cells.borrow_mut();
        let mut order = self.order.borrow_mut();
        if cells.contains_key(key) {
            if put == Put::New {
                return false;
            }
        } else {
            while cells.len() >= self.capacity {
                if !self.evicts {
                    return false;
                }
                let Some(oldest) = order.pop_front() else {
                    return false;
                };
                cells.remove(&oldest);
            }
            order.push_back(*key);
        }
        cells.insert(*key, Box::leak(Box::new(FlowCell::new(*flow))));
        true
    }
}

/// Places of each CPU's queue of closed connections.
pub const CLOSED_ROOM: u32 = 64;
pub const CPUS: u32 = 3;

/// The tables of one family.
pub struct Maps<F: Family> {
    pub frontends: HashMap<FrontendKey<F::Addr>, FrontendRef>,
    pub local: HashMap<F::Addr, LocalAddr>,
    pub backends: HashMap<BackendId, Backend<F::Addr>>,
    pub connections: Flows<F::Addr>,
    pub datagrams: Flows<F::Addr>,
    pub pending: Flows<F::Addr>,
    /// The queues of closed connections.
    closed: Vec<ClosedCell<F::Addr>>,
    closed_ends: [EndsCell; CPUS as usize],
    full_since: Cell<Jiffies>,
    pub affinity: RefCell<HashMap<AffinityKey<F::Addr>, Affinity>>,
    /// What packets to the node's own connections have, and their protocol.
    pub sockets: HashSet<(Tuple<F::Addr>, u8)>,
    /// Service, address, and prefix length in bits.
    pub ranges: Vec<(ServiceId, F::Addr, u32)>,
    pub fragments: RefCell<HashMap<FragmentKey<F::Addr>, FragmentPorts>>,
    /// Datagrams with fragments that wait for their first one.
    pub held: RefCell<HashSet<FragmentKey<F::Addr>>>,
    shares: RefCell<HashMap<F::Addr, &'static ShareCell>>,
    /// The source addresses that the kernel would choose, by destination.
    pub sources: HashMap<F::Addr, F::Addr>,
    /// Routes by destination; nothing else is reachable.
    pub routes: HashMap<F::Addr, Fib>,
    /// Kept from packet to packet, as in the kernel: nothing may be read before this packet wrote it.
    work: RefCell<Work<F::Addr>>,
}

impl<F: Family> Default for Maps<F> {
    fn default() -> Self {
        Self {
            frontends: HashMap::new(),
            local: HashMap::new(),
            backends: HashMap::new(),
            connections: Flows::new(false),
            datagrams: Flows::new(true),
            pending: Flows::new(true),
            closed: (0..CPUS * CLOSED_ROOM)
                // SAFETY: all of it is integers.
                .map(|_| ClosedCell::new(unsafe { core::mem::zeroed() }))
                .collect(),
            closed_ends: Default::default(),
            full_since: Cell::default(),
            affinity: RefCell::default(),
            sockets: HashSet::new(),
            ranges: Vec::new(),
            fragments: RefCell::default(),
            held: RefCell::default(),
            shares: RefCell::default(),
            sources: HashMap::new(),
            routes: HashMap::new(),
            // SAFETY: all of it is integers, and enums that have a variant 0; map memory begins as zeros too.
            work: RefCell::new(unsafe { core::mem::zeroed() }),
        }
    }
}

impl<F: Net> Maps<F> {
    /// In the order of the datapath: stored, then removed.
    fn confirm_all(&self) {
        for key in self.pending.keys() {
            if let Some(flow) = self.pending.get(&key) {
                self.flows(Table::confirmed(key.proto()))
                    .put(&key, &flow, Put::Over);
                self.pending.remove(&key);
            }
        }
    }

    /// What is kept beside flows, in words and in any order that stays.
    pub fn beside(&self) -> Vec<String> {
        let affinity = self.affinity.borrow();
        let shares = self.shares.borrow();
        let fragments = self.fragments.borrow();
        let mut all: Vec<_> = affinity.iter().map(|entry| format!("{entry:?}")).collect();
        let shares = shares.iter().map(|(source, share)| (source, share.get()));
        all.extend(shares.map(|entry| format!("{entry:?}")));
        all.extend(fragments.iter().map(|entry| format!("{entry:?}")));
        all.sort_unstable();
        all
    }

    /// How many confirmed flows there are, of all protocols.
    pub fn confirmed_len(&self) -> usize {
        self.connections.len() + self.datagrams.len()
    }

    pub fn flows(&self, table: Table) -> &Flows<F::Addr> {
        match table {
            Table::Connections => &self.connections,
            Table::Datagrams => &self.datagrams,
            Table::Pending => &self.pending,
        }
    }
}

/// Everything that the core can ask for.
pub struct World {
    pub config: Option<Config>,
    pub clock: Cell<Jiffies>,
    pub services: HashMap<ServiceId, Service>,
    pub slots: Vec<BackendId>,
    pub devices: HashMap<IfIndex, Device>,
    gate: Vec<u64>,
    /// Before the pending table is looked at next, another CPU confirms all that is in it.
    pub confirms: Cell<bool>,
    /// The device at the hook that runs.
    here: Cell<IfIndex>,
    pub cursor: Cell<u32>,
    /// The CPU that the hooks run on, below [`CPUS`].
    pub cpu: Cell<u32>,
    /// Packets that the fast path left to the slow one.
    pub slowed: Cell<u32>,
    /// Next hops that were noted for the agent to keep alive.
    pub noted: Cell<u32>,
    reasons: RefCell<HashMap<(u32, Reason), u64>>,
    backend_counts: RefCell<HashMap<BackendId, Counter>>,
    service_counts: RefCell<HashMap<ServiceId, ServiceCounter>>,
    held: RefCell<HashMap<ServiceId, u64>>,
    pub v4: Maps<V4>,
    pub v6: Maps<V6>,
}

impl World {
    pub fn empty() -> Self {
        Self {
            config: None,
            // Shortly before jiffies wrap, as after the kernel's boot.
            clock: Cell::new(Jiffies(0).earlier(50)),
            services: HashMap::new(),
            slots: Vec::new(),
            devices: HashMap::new(),
            gate: vec![0; gate::WORDS as usize],
            confirms: Cell::new(false),
            here: Cell::new(IfIndex::NONE),
            cursor: Cell::new(0),
            cpu: Cell::default(),
            slowed: Cell::new(0),
            noted: Cell::new(0),
            reasons: RefCell::default(),
            backend_counts: RefCell::default(),
            service_counts: RefCell::default(),
            held: RefCell::default(),
            v4: Maps::default(),
            v6: Maps::default(),
        }
    }

    pub fn config_mut(&mut self) -> &mut Config {
        self.config.as_mut().expect("the world is configured")
    }

    pub fn open_gate(&mut self, bit: gate::Bit) {
        self.gate[bit.word as usize] |= bit.mask;
    }

    pub fn pass_time(&self, jiffies: u32) {
        self.clock.set(self.clock.get().later(jiffies));
    }

    /// Sends a packet through a hook of a device: the fast path, and the slow one if that is asked for.
    ///
    /// What holds for every packet is asserted here: who passes is untouched, and the fast path leaves whole
    /// what it hands on.
    pub fn run(&self, hook: Hook, device: IfIndex, packet: &mut Buffer) -> Verdict {
        self.here.set(device);
        let before = packet.clone();
        let foretold = self.foretell(hook, packet);
        let mut verdict = fast::fast(hook, packet, self);
        if verdict.action == Action::Slow {
            self.slowed.set(self.slowed.get() + 1);
            assert_eq!(*packet, before, "the fast path touched what it left");
            verdict = match packet.ethertype() {
                Some(V4::ETHERTYPE) => self.slow::<V4>(hook, packet),
                _ => self.slow::<V6>(hook, packet),
            };
        }
        assert_ne!(
            verdict.action,
            Action::Slow,
            "the slow path leaves nothing undecided"
        );
        if verdict.action == Action::Pass {
            assert_eq!(*packet, before, "a packet that passes is untouched");
        }
        if let Some(foretold) = foretold {
            assert_eq!(
                foretold,
                (verdict, packet.clone()),
                "a dry run foretold something else"
            );
        }
        verdict
    }

    /// The device at the hook that runs next.
    pub fn be_at(&self, device: IfIndex) {
        self.here.set(device);
    }

    /// What the programs count and the round of ports, in words.
    pub fn counted(&self) -> String {
        let Self {
            reasons,
            backend_counts,
            service_counts,
            cursor,
            ..
        } = self;
        let reasons: BTreeMap<_, _> = reasons.borrow().iter().map(|(k, v)| (*k, *v)).collect();
        let backends: BTreeMap<_, _> = backend_counts
            .borrow()
            .iter()
            .map(|(k, v)| (*k, format!("{v:?}")))
            .collect();
        let services: BTreeMap<_, _> = service_counts
            .borrow()
            .iter()
            .map(|(k, v)| (*k, format!("{v:?}")))
            .collect();
        format!("{reasons:?} {backends:?} {services:?} {}", cursor.get())
    }

    fn slow<F: Net>(&self, hook: Hook, packet: &mut Buffer) -> Verdict {
        let mut work = F::maps(self).work.borrow_mut();
        slow::slow::<F, _, _>(hook, packet, self, &mut work)
    }

    pub fn reason_count(&self, hook: Hook, reason: Reason) -> u64 {
        let counts = self.reasons.borrow();
        counts.get(&(hook.index, reason)).copied().unwrap_or(0)
    }

    pub fn backend_count(&self, backend: BackendId) -> Counter {
        let counts = self.backend_counts.borrow();
        counts.get(&backend).copied().unwrap_or_default()
    }

    pub fn service_count(&self, service: ServiceId) -> ServiceCounter {
        let counts = self.service_counts.borrow();
        counts.get(&service).copied().unwrap_or_default()
    }

    /// First packets of a service that were held.
    pub fn held(&self, service: ServiceId) -> u64 {
        self.held.borrow().get(&service).copied().unwrap_or(0)
    }
}

impl Node for World {
    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    fn gate(&self, bit: gate::Bit) -> bool {
        self.gate[bit.word as usize] & bit.mask != 0
    }

    fn now(&self) -> Jiffies {
        self.clock.get()
    }

    fn device(&self, ifindex: IfIndex) -> Option<&Device> {
        self.devices.get(&ifindex)
    }

    fn ifindex(&self) -> IfIndex {
        self.here.get()
    }

    fn next_port(&self) -> u32 {
        let n = self.cursor.get();
        self.cursor.set(n.wrapping_add(1));
        n
    }
}

impl Cursor for World {
    fn port_cursor(&self) -> u32 {
        self.cursor.get()
    }
}

impl Meters for World {
    fn count_reason(&self, hook: u32, reason: Reason) {
        *self.reasons.borrow_mut().entry((hook, reason)).or_default() += 1;
    }

    fn count_packet(&self, backend: BackendId, bytes: u32, reply: bool) {
        let mut counts = self.backend_counts.borrow_mut();
        let c = counts.entry(backend).or_default();
        let (packets, total) = if reply {
            (&mut c.reply_packets, &mut c.reply_bytes)
        } else {
            (&mut c.packets, &mut c.bytes)
        };
        *packets += 1;
        *total += bytes as u64;
    }

    fn count_connection(&self, service: ServiceId, backend: BackendId) {
        let mut services = self.service_counts.borrow_mut();
        services.entry(service).or_default().connections += 1;
        let mut backends = self.backend_counts.borrow_mut();
        backends.entry(backend).or_default().connections += 1;
    }

    fn count_refused(&self, service: ServiceId) {
        let mut counts = self.service_counts.borrow_mut();
        counts.entry(service).or_default().refused += 1;
    }

    fn count_dropped(&self, service: ServiceId) {
        let mut counts = self.service_counts.borrow_mut();
        counts.entry(service).or_default().dropped += 1;
    }

    fn count_held(&self, service: ServiceId) {
        *self.held.borrow_mut().entry(service).or_default() += 1;
    }
}

impl<F: Net> Services<F> for World {
    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<FrontendRef> {
        F::maps(self).frontends.get(key).copied()
    }

    fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id)
    }

    fn slot(&self, slot: Slot) -> Option<BackendId> {
        self.slots.get(slot.0 as usize).copied()
    }

    fn backend(&self, id: BackendId) -> Option<&Backend<F::Addr>> {
        F::maps(self).backends.get(&id)
    }

    fn affinity(&self, key: &AffinityKey<F::Addr>) -> Option<Affinity> {
        F::maps(self).affinity.borrow().get(key).copied()
    }

    fn set_affinity(&self, key: &AffinityKey<F::Addr>, value: &Affinity) {
        F::maps(self).affinity.borrow_mut().insert(*key, *value);
    }

    fn in_ranges(&self, key: RangeKey<F::Addr>) -> bool {
        let bits = |addr: &F::Addr, n: u32| {
            let mut bytes = F::bytes(addr);
            for (i, byte) in bytes.iter_mut().enumerate() {
                let kept = n.saturating_sub(8 * i as u32).min(8);
                *byte &= !(0xffu16 >> kept) as u8;
            }
            bytes
        };
        F::maps(self).ranges.iter().any(|(service, net, n)| {
            *service == key.service && bits(net, *n) == bits(&key.addr, *n)
        })
    }
}

impl<F: Net> tables::Flows<F> for World {
    fn flow(&self, table: Table, key: &FlowKey<F::Addr>) -> Option<&FlowCell<F::Addr>> {
        let maps = F::maps(self);
        if table == Table::Pending && self.confirms.take() {
            maps.confirm_all();
        }
        maps.flows(table).cells.borrow().get(key).copied()
    }

    fn put_flow(
        &self,
        table: Table,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        put: Put,
    ) -> bool {
        F::maps(self).flows(table).put(key, flow, put)
    }

    fn delete_flow(&self, table: Table, key: &FlowKey<F::Addr>) {
        F::maps(self).flows(table).remove(key);
    }

    fn queues(&self) -> Queues {
        Queues {
            own: self.cpu.get(),
            count: CPUS,
            room: CLOSED_ROOM,
        }
    }

    fn closed_ends(&self, queue: u32) -> Option<&EndsCell> {
        F::maps(self).closed_ends.get(queue as usize)
    }

    fn closed(&self, place: u32) -> Option<&ClosedCell<F::Addr>> {
        F::maps(self).closed.get(place as usize)
    }

    fn full_since(&self) -> Jiffies {
        F::maps(self).full_since.get()
    }

    fn note_full(&self, now: Jiffies) {
        F::maps(self).full_since.set(now);
    }

    fn has_socket(&self, tuple: &Tuple<F::Addr>, proto: u8) -> bool {
        F::maps(self).sockets.contains(&(*tuple, proto))
    }

    fn share(&self, network: &F::Addr) -> Option<&ShareCell> {
        F::maps(self).shares.borrow().get(network).copied()
    }

    fn put_share(&self, network: &F::Addr, share: &Share) {
        let cell = Box::leak(Box::new(ShareCell::new(*share)));
        F::maps(self).shares.borrow_mut().insert(*network, cell);
    }

    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentPorts> {
        F::maps(self).fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragmentKey<F::Addr>, ports: &FragmentPorts) {
        F::maps(self).fragments.borrow_mut().insert(*key, *ports);
    }

    fn is_held(&self, key: &FragmentKey<F::Addr>) -> bool {
        F::maps(self).held.borrow().contains(key)
    }
}

impl<F: Net> Routes<F> for World {
    fn note_next_hop(&self) {
        self.noted.set(self.noted.get() + 1);
    }

    fn local_addr(&self, addr: &F::Addr) -> Option<LocalAddr> {
        F::maps(self).local.get(addr).copied()
    }

    fn fib(&self, _: &F::Addr, dst: &F::Addr) -> Fib {
        F::maps(self).routes.get(dst).copied().unwrap_or(Fib::None)
    }

    fn source(&self, dst: &F::Addr) -> Option<F::Addr> {
        F::maps(self).sources.get(dst).copied()
    }
}
