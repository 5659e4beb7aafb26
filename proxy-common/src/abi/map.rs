//! The table of maps: all that is known of each before anything is loaded, told once.
//!
//! The statics of the programs take sizes and flags from here, the agent takes shapes and types, `docs/maps.md` is written from it, and
//! the build of the object holds the maps that came out against it (`xtask/src/object_check`).

use core::marker::PhantomData;

use super::{
    Affinity, AffinityKey, Backend, BackendId, Closed, Config, Counter, Device, Ends, Flow,
    FlowKey, FragmentKey, FragmentPorts, FrontendKey, HOOKS, HeldKey, IfIndex, Jiffies, LocalAddr,
    NextHop, RangeKey, SLOW_PROGRAMS, Service, ServiceCounter, ServiceId, Share, Slot, gate,
};
use crate::{
    addr::{Ip4, Ip6},
    reason::Reason,
};

/// The kernel's kinds of map, by their numbers (`enum bpf_map_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    Hash = 1,
    Array = 2,
    ProgramArray = 3,
    PerCpuArray = 6,
    LruHash = 9,
    LpmTrie = 11,
}

/// What a map is for: it tells who writes it, and what becomes of what it holds when another agent takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// What the node looks like; the agent finds it anew.
    Node,
    /// Services and backends, as the plan writes them.
    Plan,
    /// Connections, which the programs keep.
    Flows,
    /// Which backend a client has had last.
    Affinity,
    /// Traffic of services and backends.
    Counts,
    /// What is soon forgotten, or of a size that is part of its layout.
    Scratch,
    /// The programs themselves.
    Programs,
    /// Room that one run of a program needs. It is not pinned, and its layout is the programs' own.
    Private,
}

/// What becomes of a map of the same layout, but of another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resized {
    /// The same map goes on being used: programs that run side by side must see the same.
    Shared,
    /// What it holds is written into one of the other size.
    Copied,
    /// The other one begins empty.
    Lost,
}

impl Role {
    pub const fn resized(self) -> Resized {
        match self {
            Self::Flows | Self::Affinity => Resized::Shared,
            Self::Plan | Self::Counts => Resized::Copied,
            Self::Node | Self::Scratch | Self::Programs | Self::Private => Resized::Lost,
        }
    }

    /// Is it the agent that writes such a map while programs run? Else they do.
    pub const fn is_agents(self) -> bool {
        matches!(self, Self::Node | Self::Plan | Self::Programs)
    }

    /// Does it outlive the agent, in the directory of pins?
    pub const fn is_pinned(self) -> bool {
        !matches!(self, Self::Private)
    }
}

/// How many entries a map has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entries {
    Fixed(u32),
    /// The agent gives the map its size when it loads the object, in which such a map has one entry.
    Chosen(Size),
}

/// What the size of a map depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    Services,
    Backends,
    Slots,
    Frontends,
    Ranges,
    Devices,
    Addresses,
    Flows,
    Datagrams,
    Pending,
    Closed,
    Queues,
    Affinity,
}

/// `BPF_F_NO_PREALLOC`: an update replaces the whole element; readers see the old or the new one. Tries have no other way.
pub const NO_PREALLOC: u32 = 1;

/// One map, with the types of its keys and values.
#[derive(Debug)]
pub struct Map<K, V> {
    pub name: &'static str,
    /// What it holds, for `docs/maps.md`.
    pub about: &'static str,
    pub kind: Kind,
    pub role: Role,
    /// The version of the ABI since which the map has this layout, and what it holds this meaning.
    pub since: u32,
    pub entries: Entries,
    /// `BPF_F_*`.
    pub flags: u32,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Map<K, V> {
    /// One of layout version 1, without flags.
    const fn new(
        name: &'static str,
        kind: Kind,
        role: Role,
        entries: Entries,
        about: &'static str,
    ) -> Self {
        let flags = match kind {
            Kind::Hash | Kind::LpmTrie => NO_PREALLOC,
            Kind::Array | Kind::PerCpuArray | Kind::LruHash | Kind::ProgramArray => 0,
        };
        Self {
            name,
            about,
            kind,
            role,
            since: 1,
            entries,
            flags,
            types: PhantomData,
        }
    }

    const fn since(self, version: u32) -> Self {
        Self {
            since: version,
            ..self
        }
    }

    const fn with(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// Room of the map in the object, as a static's type wants it.
    pub const fn room(&self) -> usize {
        match self.entries {
            Entries::Fixed(entries) => entries as usize,
            Entries::Chosen(_) => 1,
        }
    }

    /// Flags, as a static's type wants them.
    pub const fn bits(&self) -> usize {
        self.flags as usize
    }
}

/// Key or value of a [`Role::Private`] map.
#[derive(Debug)]
pub struct Private;

/// Key of a trie: prefix length in bits, then what it is of. Laid out as the `Key` of aya's two halves.
#[derive(Debug)]
#[repr(C)]
pub struct Prefix<K> {
    pub prefix_len: u32,
    pub data: K,
}

layout!(Prefix<K> { prefix_len, data });

use Entries::{Chosen, Fixed};
use Kind::{Array, Hash, LpmTrie, LruHash, PerCpuArray, ProgramArray};

pub const CONFIG: Map<u32, Config> = Map::new(
    "CONFIG",
    Array,
    Role::Node,
    Fixed(1),
    "what can change while the programs run",
)
.since(5);

pub const DEVICES: Map<IfIndex, Device> = Map::new(
    "DEVICES",
    Hash,
    Role::Node,
    Chosen(Size::Devices),
    "interface index -> what the programs know of a network device",
)
.since(5);

pub const GATE: Map<u32, u64> = Map::new(
    "GATE",
    Array,
    Role::Plan,
    Fixed(gate::WORDS),
    "bit sets: may an address be a service's or a backend's, a port a NodePort or a backend's",
);

pub const SERVICES: Map<ServiceId, Service> = Map::new(
    "SERVICES",
    Hash,
    Role::Plan,
    Chosen(Size::Services),
    "service id -> flags, affinity, and an extent of the slots for each scope",
);

pub const SLOTS: Map<Slot, BackendId> = Map::new(
    "SLOTS",
    Array,
    Role::Plan,
    Chosen(Size::Slots),
    "slot -> backend id; an extent of them is what a service chooses from",
);

pub const SERVICE_COUNTS: Map<ServiceId, ServiceCounter> = Map::new(
    "SERVICE_COUNTS",
    PerCpuArray,
    Role::Counts,
    Chosen(Size::Services),
    "service id -> new flows, and packets that were refused or dropped",
);

pub const SERVICE_HELD: Map<ServiceId, u64> = Map::new(
    "SERVICE_HELD",
    PerCpuArray,
    Role::Counts,
    Chosen(Size::Services),
    "service id -> first packets that were held until there is an endpoint",
)
.since(7);

pub const BACKEND_COUNTS: Map<BackendId, Counter> = Map::new(
    "BACKEND_COUNTS",
    PerCpuArray,
    Role::Counts,
    Chosen(Size::Backends),
    "backend id -> new flows, packets and bytes",
);

pub const REASONS: Map<u32, u64> = Map::new(
    "REASONS",
    PerCpuArray,
    Role::Scratch,
    Fixed(HOOKS * Reason::COUNT),
    "hook and reason -> packets that were not translated",
);

pub const PORT_CURSOR: Map<u32, u32> = Map::new(
    "PORT_CURSOR",
    Array,
    Role::Scratch,
    Fixed(1),
    "where the round of source ports goes on",
);

pub const FULL_SINCE: Map<u32, Jiffies> = Map::new(
    "FULL_SINCE",
    Array,
    Role::Scratch,
    Fixed(2),
    "when there was last no room for a connection of IPv4 (0) and IPv6 (1), low 32 bits of jiffies; 0 for never",
)
.since(6);

pub const CLOSED_ENDS: Map<u32, Ends> = Map::new(
    "CLOSED_ENDS",
    Array,
    Role::Scratch,
    Chosen(Size::Queues),
    "where each CPU's queue of closed connections begins and ends, of IPv4 and then of IPv6",
)
.since(6);

pub const NEXT_HOPS: Map<NextHop, Jiffies> = Map::new(
    "NEXT_HOPS",
    LruHash,
    Role::Scratch,
    Fixed(1024),
    "next hop that hints of flows lead to -> when it was last looked up, low 32 bits of jiffies",
)
.since(5);

pub const SLOW_XDP: Map<u32, u32> = Map::new(
    "SLOW_XDP",
    ProgramArray,
    Role::Programs,
    Fixed(SLOW_PROGRAMS),
    "the programs of the slow path at XDP",
)
.since(5);

pub const SLOW_TC: Map<u32, u32> = Map::new(
    "SLOW_TC",
    ProgramArray,
    Role::Programs,
    Fixed(SLOW_PROGRAMS),
    "the programs of the slow path at TC",
)
.since(5);

pub const HELD: Map<HeldKey, Private> = Map::new(
    "HELD",
    LruHash,
    Role::Private,
    Fixed(512),
    "fragments that came before the first of their datagram",
);

pub const HOLDING: Map<u32, Private> = Map::new(
    "HOLDING",
    PerCpuArray,
    Role::Private,
    Fixed(2),
    "where a held fragment is built (0), and where the first one stands meanwhile (1)",
);

pub const FIB: Map<u32, Private> = Map::new(
    "FIB",
    PerCpuArray,
    Role::Private,
    Fixed(1),
    "where the parameters of a route look-up are built, and the key of the next hop that it led to",
);

pub const EXPLAIN: Map<u32, Private> = Map::new(
    "EXPLAIN",
    Array,
    Role::Private,
    Fixed(1),
    "what a dry run is asked, and what it did (`proxy-agent explain`)",
);

/// The maps that each family has for itself.
#[derive(Debug)]
pub struct OfFamily<A> {
    pub frontends: Map<FrontendKey<A>, u32>,
    pub backends: Map<BackendId, Backend<A>>,
    pub ranges: Map<Prefix<RangeKey<A>>, u32>,
    pub local_addrs: Map<A, LocalAddr>,
    pub flows: Map<FlowKey<A>, Flow<A>>,
    pub datagrams: Map<FlowKey<A>, Flow<A>>,
    pub pending: Map<FlowKey<A>, Flow<A>>,
    pub affinity: Map<AffinityKey<A>, Affinity>,
    pub shares: Map<A, Share>,
    pub fragments: Map<FragmentKey<A>, FragmentPorts>,
    pub closed: Map<u32, Closed<A>>,
    pub work: Map<u32, Private>,
}

pub const V4: OfFamily<Ip4> = OfFamily::new(0);
pub const V6: OfFamily<Ip6> = OfFamily::new(1);

impl<A> OfFamily<A> {
    const fn new(family: usize) -> Self {
        Self {
            frontends: Map::new(
                ["FRONTENDS_4", "FRONTENDS_6"][family],
                Hash,
                Role::Plan,
                Chosen(Size::Frontends),
                "address, port and protocol -> service id and kind of address",
            ),
            backends: Map::new(
                ["BACKENDS_4", "BACKENDS_6"][family],
                Array,
                Role::Plan,
                Chosen(Size::Backends),
                "backend id -> address, port, flags and generation",
            ),
            ranges: Map::new(
                ["RANGES_4", "RANGES_6"][family],
                LpmTrie,
                Role::Plan,
                Chosen(Size::Ranges),
                "service id and prefix of a client's address -> anything, if it may use the service",
            ),
            local_addrs: Map::new(
                ["LOCAL_ADDRS_4", "LOCAL_ADDRS_6"][family],
                Hash,
                Role::Node,
                Chosen(Size::Addresses),
                "address of this node -> flags",
            ),
            flows: Map::new(
                ["FLOWS_4", "FLOWS_6"][family],
                Hash,
                Role::Flows,
                Chosen(Size::Flows),
                "confirmed connections: tuple, protocol and direction -> the whole rewrite. None goes for another",
            )
            .since(6)
            .with(0),
            datagrams: Map::new(
                ["DATAGRAMS_4", "DATAGRAMS_6"][family],
                LruHash,
                Role::Flows,
                Chosen(Size::Datagrams),
                "confirmed flows of datagrams, the same; for another one goes the one that was not used the longest",
            )
            .since(6),
            pending: Map::new(
                ["PENDING_4", "PENDING_6"][family],
                LruHash,
                Role::Flows,
                Chosen(Size::Pending),
                "new flows, the same; for another one goes the one that was not used the longest",
            )
            .since(2),
            affinity: Map::new(
                ["AFFINITY_4", "AFFINITY_6"][family],
                LruHash,
                Role::Affinity,
                Chosen(Size::Affinity),
                "client and service id -> the backend that the client has",
            ),
            shares: Map::new(
                ["SHARES_4", "SHARES_6"][family],
                LruHash,
                Role::Scratch,
                Fixed(16_384),
                "network of a source -> flows that it began and nobody answered",
            )
            .since(5),
            fragments: Map::new(
                ["FRAGMENTS_4", "FRAGMENTS_6"][family],
                LruHash,
                Role::Scratch,
                Fixed(8192),
                "datagram -> the ports that only its first fragment shows",
            ),
            closed: Map::new(
                ["CLOSED_4", "CLOSED_6"][family],
                Array,
                Role::Scratch,
                Chosen(Size::Closed),
                "each CPU's queue of connections that ended there, and leave their table after a while",
            )
            .since(6),
            work: Map::new(
                ["WORK_4", "WORK_6"][family],
                PerCpuArray,
                Role::Private,
                Fixed(1),
                "what the slow path knows of its packet",
            ),
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
pub use row::{Row, Shape, all};

/// The table for whoever goes through all of it.
#[cfg(not(target_arch = "bpf"))]
mod row {
    use super::*;
    use crate::abi::layout::{At, Layout, Part};

    /// A map without the types of its keys and values.
    #[derive(Clone, Copy, Debug)]
    pub struct Row {
        pub name: &'static str,
        pub about: &'static str,
        pub kind: Kind,
        pub role: Role,
        pub since: u32,
        pub entries: Entries,
        pub flags: u32,
        /// `None` for what is the programs' own.
        pub key: Option<Shape>,
        pub value: Option<Shape>,
    }

    impl Row {
        /// Room of the map in the object.
        pub const fn room(&self) -> u32 {
            match self.entries {
                Fixed(entries) => entries,
                Chosen(_) => 1,
            }
        }
    }

    /// A key or a value.
    #[derive(Clone, Copy, Debug)]
    pub struct Shape {
        /// Size in bytes.
        pub size: u32,
        tell: fn(At, &mut dyn FnMut(Part)),
    }

    impl Shape {
        /// Tells its parts, in the order of their fields as these are told, which need not be that of their places.
        pub fn parts(&self, mut out: impl FnMut(Part)) {
            (self.tell)(At::default(), &mut out);
        }
    }

    /// What may be a key or a value.
    pub trait Shaped {
        const SHAPE: Option<Shape>;
    }

    impl<T: Layout> Shaped for T {
        const SHAPE: Option<Shape> = Some(Shape {
            size: size_of::<T>() as u32,
            tell: T::tell,
        });
    }

    impl Shaped for Private {
        const SHAPE: Option<Shape> = None;
    }

    impl<K: Shaped, V: Shaped> Map<K, V> {
        pub const fn row(&self) -> Row {
            Row {
                name: self.name,
                about: self.about,
                kind: self.kind,
                role: self.role,
                since: self.since,
                entries: self.entries,
                flags: self.flags,
                key: K::SHAPE,
                value: V::SHAPE,
            }
        }
    }

    impl<A: Layout> OfFamily<A> {
        fn rows(&self) -> [Row; 12] {
            // A map that is added and not told here does not compile.
            let Self {
                frontends,
                backends,
                ranges,
                local_addrs,
                flows,
                datagrams,
                pending,
                affinity,
                shares,
                fragments,
                closed,
                work,
            } = self;
            [
                frontends.row(),
                backends.row(),
                ranges.row(),
                local_addrs.row(),
                flows.row(),
                datagrams.row(),
                pending.row(),
                affinity.row(),
                shares.row(),
                fragments.row(),
                closed.row(),
                work.row(),
            ]
        }
    }

    /// All maps of the object.
    pub fn all() -> impl Iterator<Item = Row> {
        [
            CONFIG.row(),
            DEVICES.row(),
            GATE.row(),
            SERVICES.row(),
            SLOTS.row(),
            SERVICE_COUNTS.row(),
            SERVICE_HELD.row(),
            BACKEND_COUNTS.row(),
            REASONS.row(),
            PORT_CURSOR.row(),
            FULL_SINCE.row(),
            CLOSED_ENDS.row(),
            NEXT_HOPS.row(),
            SLOW_XDP.row(),
            SLOW_TC.row(),
            HELD.row(),
            HOLDING.row(),
            FIB.row(),
            EXPLAIN.row(),
        ]
        .into_iter()
        .chain(V4.rows())
        .chain(V6.rows())
    }
}
