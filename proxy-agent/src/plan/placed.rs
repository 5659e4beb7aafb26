//! One service port as it stands in the maps.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use proxy_common::abi::{
    self, BackendFlags, BackendId, Extent, FrontendKind, Generation, Service, ServiceFlags,
    ServiceId,
};

use super::{BackendEntry, FrontendAt, Image, addresses::NodeAddresses};
use crate::model::{
    self, Balancing, Cidr, DesiredService, EndpointId, Family, OnEmpty, ServicePortKey,
};

/// Extents, each once, with the backend ids in their slots.
pub type Filled = Vec<(Extent, Box<[BackendId]>)>;

/// Where a service port is reached: sorted, each once. Lists, since there are as many of them as there are services.
pub type Frontends = Vec<(FrontendAt, FrontendKind)>;

#[derive(Clone, Debug)]
pub struct Placed {
    pub id: ServiceId,
    pub value: Service,
    pub frontends: Frontends,
    /// Sorted by their sockets, each once.
    pub backends: Vec<Seat>,
    /// The extents of `value` that are not empty.
    pub extents: Filled,
    /// What the ranges table holds.
    pub ranges: BTreeSet<Cidr>,
    /// `loadBalancerSourceRanges`, from which `ranges` follow.
    pub source_ranges: Vec<Cidr>,
}

/// How many entries a frontend stands for: all other ports of a ClusterIP are refused, which is an entry as well.
pub const fn entries(kind: FrontendKind) -> u32 {
    match kind {
        FrontendKind::ClusterIp => 2,
        _ => 1,
    }
}

/// The same for all of a family.
pub fn entries_of(frontends: &Frontends, family: Family) -> u32 {
    let of_family = frontends.iter().filter(|(at, _)| at.family() == family);
    of_family.map(|(_, kind)| entries(*kind)).sum()
}

/// Is this place among them, as one of this kind?
pub fn stands(frontends: &Frontends, at: FrontendAt, kind: FrontendKind) -> bool {
    let found = frontends.binary_search_by_key(&at, |(at, _)| *at);
    found.is_ok_and(|found| frontends[found].1 == kind)
}

/// A backend of the service that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    addr: IpAddr,
    port: u16,
    pub flags: BackendFlags,
    pub id: BackendId,
    pub generation: Generation,
}

impl Seat {
    pub const fn new(
        socket: SocketAddr,
        flags: BackendFlags,
        id: BackendId,
        generation: Generation,
    ) -> Self {
        Self {
            addr: socket.ip(),
            port: socket.port(),
            flags,
            id,
            generation,
        }
    }

    pub const fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.addr, self.port)
    }

    /// As it stands in the table.
    pub const fn entry(&self, service: ServiceId) -> BackendEntry {
        BackendEntry {
            socket: self.socket(),
            flags: self.flags,
            generation: self.generation,
            service,
        }
    }
}

/// All services of `image`, by id. Whose they are is not known: the maps hold no names.
pub fn read(image: &Image) -> HashMap<ServiceId, Placed> {
    let mut all: HashMap<ServiceId, Placed> = image
        .services
        .iter()
        .map(|(&id, &value)| {
            let mut placed = Placed::new(id);
            placed.value = value;
            for extent in [value.internal, value.external, value.short_circuit] {
                if extent.len > 0 && !placed.extents.iter().any(|(known, _)| *known == extent) {
                    let ids = extent
                        .slots()
                        .map(|slot| image.slots.get(&slot).copied().unwrap_or(BackendId(0)))
                        .collect();
                    placed.extents.push((extent, ids));
                }
            }
            (id, placed)
        })
        .collect();
    for (&at, to) in &image.frontends {
        if to.kind() != FrontendKind::Refuse
            && let Some(placed) = all.get_mut(&to.service())
        {
            placed.frontends.push((at, to.kind()));
        }
    }
    for (&id, &entry) in &image.backends {
        if !entry.flags.is_empty()
            && let Some(placed) = all.get_mut(&entry.service)
        {
            let BackendEntry {
                socket,
                flags,
                generation,
                ..
            } = entry;
            placed
                .backends
                .push(Seat::new(socket, flags, id, generation));
        }
    }
    for &(service, range) in &image.ranges {
        if let Some(placed) = all.get_mut(&service) {
            placed.ranges.insert(range);
        }
    }
    for placed in all.values_mut() {
        placed.frontends.sort_unstable_by_key(|(at, _)| *at);
        // Of two for one endpoint, the one that new connections go to stays, else the later one.
        let listed = placed.extents.iter().flat_map(|(_, ids)| ids);
        let listed: HashSet<BackendId> = listed.copied().collect();
        placed.backends.sort_unstable_by_key(|seat| {
            let is_listed = listed.contains(&seat.id);
            (seat.addr, seat.port, Reverse((is_listed, seat.id)))
        });
        placed.backends.dedup_by_key(|seat| (seat.addr, seat.port));
    }
    all
}

impl Placed {
    pub fn new(id: ServiceId) -> Self {
        Self {
            id,
            value: Service::default(),
            frontends: Vec::new(),
            backends: Vec::new(),
            extents: Vec::new(),
            ranges: BTreeSet::new(),
            source_ranges: Vec::new(),
        }
    }

    pub fn has_frontend(&self, at: FrontendAt) -> bool {
        self.frontends
            .binary_search_by_key(&at, |(at, _)| *at)
            .is_ok()
    }

    pub fn seat(&self, socket: SocketAddr) -> Option<&Seat> {
        let wanted = (socket.ip(), socket.port());
        let at = self
            .backends
            .binary_search_by_key(&wanted, |seat| (seat.addr, seat.port));
        at.ok().map(|at| &self.backends[at])
    }
}

/// The frontends of a service. Where a load balancer's address is an external IP as well, its source ranges count.
pub fn frontends(desired: &DesiredService) -> Frontends {
    let all = desired.frontends.iter().map(|frontend| {
        let kind = match frontend.kind {
            model::FrontendKind::ClusterIp => FrontendKind::ClusterIp,
            model::FrontendKind::NodePort => FrontendKind::NodePort,
            model::FrontendKind::ExternalIp => FrontendKind::ExternalIp,
            model::FrontendKind::LoadBalancer => FrontendKind::LoadBalancer,
        };
        (frontend_at(&desired.key, frontend), kind)
    });
    let mut all: Frontends = all.collect();
    // The first of each place stays the first.
    all.sort_by_key(|(at, _)| *at);
    all.dedup_by_key(|(at, _)| *at);
    all
}

fn frontend_at(key: &ServicePortKey, frontend: &model::Frontend) -> FrontendAt {
    let (port, protocol) = (frontend.port, key.protocol);
    match frontend.addr {
        Some(addr) => FrontendAt::Port {
            addr,
            port,
            protocol,
        },
        None => FrontendAt::NodePort {
            family: key.family,
            port,
            protocol,
        },
    }
}

/// The endpoints that have a backend: those that take traffic now, and those that only keep what they have.
pub fn serving(desired: &DesiredService) -> Vec<(SocketAddr, BackendFlags, EndpointId)> {
    let scopes = [
        (&desired.internal.endpoints, BackendFlags::IN_INTERNAL),
        (&desired.external.endpoints, BackendFlags::IN_EXTERNAL),
        (&desired.cluster, BackendFlags::IN_SHORT_CIRCUIT),
    ];
    let mut flags = vec![BackendFlags::empty(); desired.endpoints.len()];
    for (endpoints, flag) in scopes {
        for id in endpoints {
            flags[id.0 as usize] |= flag;
        }
    }
    desired
        .endpoints
        .iter()
        .zip(flags)
        .enumerate()
        .filter(|(_, (endpoint, flags))| {
            !flags.is_empty() || endpoint.conditions.ready || endpoint.conditions.serving
        })
        .map(|(index, (endpoint, mut flags))| {
            flags |= BackendFlags::SERVING;
            if endpoint.local {
                flags |= BackendFlags::LOCAL;
            }
            (endpoint.socket(), flags, EndpointId(index as u32))
        })
        .collect()
}

/// `flags` with the mark of a backend on one of the node's own addresses.
pub fn host_flag(flags: BackendFlags, addr: IpAddr, node: &NodeAddresses) -> BackendFlags {
    if node.local.contains(&addr) {
        flags | BackendFlags::HOST
    } else {
        flags - BackendFlags::HOST
    }
}

/// The value of a service whose extents are these.
pub fn value(
    desired: &DesiredService,
    hz: u32,
    internal: Extent,
    external: Extent,
    short_circuit: Extent,
) -> Service {
    let mut flags = ServiceFlags::empty();
    if desired.internal.on_empty == OnEmpty::Drop {
        flags |= ServiceFlags::INTERNAL_DROP;
    }
    if desired.external.on_empty == OnEmpty::Drop {
        flags |= ServiceFlags::EXTERNAL_DROP;
    }
    if !desired.source_ranges.is_empty() {
        flags |= ServiceFlags::SOURCE_RANGES;
    }
    let [internal, external, short_circuit] = [internal, external, short_circuit].map(|extent| {
        let patience = desired.hold.map(|seconds| seconds.saturating_mul(hz));
        match patience {
            Some(patience) if extent.len == 0 => Extent::held(patience),
            _ => extent,
        }
    });
    flags |= match desired.balancing {
        Balancing::Random => ServiceFlags::empty(),
        Balancing::Maglev => ServiceFlags::BY_CLIENT,
        Balancing::SourceHash => ServiceFlags::BY_CLIENT | ServiceFlags::BY_ADDRESS,
    };
    if desired.hold.is_some() {
        flags |= ServiceFlags::HOLD;
    }
    abi::Service {
        flags,
        affinity: desired
            .affinity
            .map_or(0, |seconds| seconds.saturating_mul(hz)),
        internal,
        external,
        short_circuit,
    }
}

/// By what a service with these flags chooses.
pub const fn balancing(flags: ServiceFlags) -> Balancing {
    if flags.contains(ServiceFlags::BY_ADDRESS) {
        Balancing::SourceHash
    } else if flags.contains(ServiceFlags::BY_CLIENT) {
        Balancing::Maglev
    } else {
        Balancing::Random
    }
}

/// What the ranges table holds for a service: its ranges, and its load-balancer addresses themselves where the node is in
/// one of them (a process of the node that holds such an address may come from it).
pub fn ranges(
    source_ranges: &[Cidr],
    frontends: &Frontends,
    node: &NodeAddresses,
) -> BTreeSet<Cidr> {
    let mut all: BTreeSet<Cidr> = source_ranges.iter().copied().collect();
    if node.primary_in(source_ranges) {
        for (at, kind) in frontends {
            if let (FrontendAt::Port { addr, .. }, FrontendKind::LoadBalancer) = (at, kind) {
                all.extend(Cidr::new(*addr, if addr.is_ipv4() { 32 } else { 128 }));
            }
        }
    }
    all
}
