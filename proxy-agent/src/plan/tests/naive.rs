//! What a look-up finds, without ids: once read from the maps, once computed from what is desired in the plainest way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use proxy_common::abi::{BackendFlags, Extent, FrontendKind, ServiceFlags, ServiceId};

use super::*;
use crate::model::{self, Cidr, DesiredService, OnEmpty};

/// One service as a look-up sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seen {
    flags: ServiceFlags,
    affinity: u32,
    internal: Vec<SocketAddr>,
    external: Vec<SocketAddr>,
    short_circuit: Vec<SocketAddr>,
    /// For how many jiffies it holds first packets, by scope; nothing where there is an endpoint.
    holds: [Option<u32>; 3],
    /// All backends with their flags.
    backends: BTreeMap<SocketAddr, BackendFlags>,
    ranges: BTreeSet<Cidr>,
}

/// All services, and where they are reached; `None` for what is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Everything {
    services: Vec<Seen>,
    frontends: BTreeMap<FrontendAt, Option<(u32, Seen)>>,
}

/// What the maps hold.
pub fn read(image: &Image) -> Everything {
    let seen: BTreeMap<ServiceId, Seen> = image
        .services
        .iter()
        .map(|(&id, service)| {
            let list = |extent: Extent| {
                extent
                    .slots()
                    .map(|slot| image.backends[&image.slots[&slot]].socket)
                    .collect()
            };
            let backends = image.backends.values();
            let ranges = image.ranges.iter();
            let seen = Seen {
                flags: service.flags,
                affinity: service.affinity,
                internal: list(service.internal),
                external: list(service.external),
                short_circuit: list(service.short_circuit),
                holds: [service.internal, service.external, service.short_circuit].map(|extent| {
                    let holds = service.flags.contains(ServiceFlags::HOLD) && extent.len == 0;
                    holds.then(|| extent.patience())
                }),
                backends: backends
                    .filter(|entry| entry.service == id && !entry.flags.is_empty())
                    .map(|entry| (entry.socket, entry.flags))
                    .collect(),
                ranges: ranges
                    .filter(|(of, _)| *of == id)
                    .map(|(_, range)| *range)
                    .collect(),
            };
            (id, seen)
        })
        .collect();
    let frontends = image
        .frontends
        .iter()
        .map(|(&at, to)| {
            let service = match to.kind() {
                FrontendKind::Refuse => None,
                kind => Some((kind as u32, seen[&to.service()].clone())),
            };
            (at, service)
        })
        .collect();
    let mut services: Vec<Seen> = seen.into_values().collect();
    services.sort();
    Everything {
        services,
        frontends,
    }
}

/// Backends and ranges that belong to nothing.
pub fn strays(image: &Image) -> usize {
    let live = |service: &ServiceId| image.services.contains_key(service);
    let backends = image.backends.values();
    backends
        .filter(|entry| !entry.flags.is_empty() && !live(&entry.service))
        .count()
        + image
            .ranges
            .iter()
            .filter(|(service, _)| !live(service))
            .count()
}

/// What the maps should hold.
pub fn expect<'a>(
    desired: impl Iterator<Item = &'a DesiredService> + Clone,
    node: &NodeAddresses,
) -> Everything {
    let mut services = Vec::new();
    let mut frontends = BTreeMap::new();
    for service in desired.clone() {
        let seen = see(service, node);
        services.push(seen.clone());
        for frontend in &service.frontends {
            frontends
                .entry(at(service, frontend))
                .or_insert_with(|| Some((kind(frontend) as u32, seen.clone())));
        }
    }
    let addresses = |cluster: bool| -> BTreeSet<IpAddr> {
        desired
            .clone()
            .flat_map(|service| &service.frontends)
            .filter(|frontend| (frontend.kind == model::FrontendKind::ClusterIp) == cluster)
            .filter_map(|frontend| frontend.addr)
            .collect()
    };
    for addr in addresses(true) {
        if !addresses(false).contains(&addr) && !node.local.contains(&addr) {
            frontends.insert(FrontendAt::WholeAddress(addr), None);
        }
    }
    services.sort();
    Everything {
        services,
        frontends,
    }
}

fn see(service: &DesiredService, node: &NodeAddresses) -> Seen {
    let scopes = [
        (&service.internal.endpoints, BackendFlags::IN_INTERNAL),
        (&service.external.endpoints, BackendFlags::IN_EXTERNAL),
        (&service.cluster, BackendFlags::IN_SHORT_CIRCUIT),
    ];
    let sockets = scopes.map(|(endpoints, _)| -> Vec<SocketAddr> {
        endpoints
            .iter()
            .map(|id| service.endpoint(*id).socket())
            .collect()
    });
    let mut backends = BTreeMap::new();
    for endpoint in &service.endpoints {
        let mut flags = BackendFlags::empty();
        for (list, (_, flag)) in sockets.iter().zip(scopes) {
            if list.contains(&endpoint.socket()) {
                flags |= flag;
            }
        }
        if flags.is_empty() && !endpoint.conditions.ready && !endpoint.conditions.serving {
            continue;
        }
        flags |= BackendFlags::SERVING;
        if endpoint.local {
            flags |= BackendFlags::LOCAL;
        }
        if node.local.contains(&endpoint.addr) {
            flags |= BackendFlags::HOST;
        }
        backends.insert(endpoint.socket(), flags);
    }
    let mut flags = ServiceFlags::empty();
    for (is_set, flag) in [
        (
            service.internal.on_empty == OnEmpty::Drop,
            ServiceFlags::INTERNAL_DROP,
        ),
        (
            service.external.on_empty == OnEmpty::Drop,
            ServiceFlags::EXTERNAL_DROP,
        ),
        (
            !service.source_ranges.is_empty(),
            ServiceFlags::SOURCE_RANGES,
        ),
        (service.hold.is_some(), ServiceFlags::HOLD),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    let holds = [0, 1, 2].map(|scope: usize| {
        let seconds = service.hold.filter(|_| sockets[scope].is_empty());
        seconds.map(|seconds| seconds * HZ)
    });
    let [internal, external, short_circuit] = sockets;
    Seen {
        flags,
        affinity: service.affinity.unwrap_or(0) * HZ,
        internal,
        external,
        short_circuit,
        holds,
        backends,
        ranges: ranges(service, node),
    }
}

fn ranges(service: &DesiredService, node: &NodeAddresses) -> BTreeSet<Cidr> {
    let mut all: BTreeSet<Cidr> = service.source_ranges.iter().copied().collect();
    let mut primary = node.primary.iter();
    if primary.any(|addr| {
        service
            .source_ranges
            .iter()
            .any(|range| range.contains(*addr))
    }) {
        for frontend in &service.frontends {
            if frontend.kind == model::FrontendKind::LoadBalancer {
                all.extend(frontend.addr.and_then(|addr| Cidr::new(addr, 32)));
            }
        }
    }
    all
}

pub fn at(service: &DesiredService, frontend: &model::Frontend) -> FrontendAt {
    let (port, protocol) = (frontend.port, service.key.protocol);
    match frontend.addr {
        Some(addr) => FrontendAt::Port {
            addr,
            port,
            protocol,
        },
        None => FrontendAt::NodePort {
            family: service.key.family,
            port,
            protocol,
        },
    }
}

fn kind(frontend: &model::Frontend) -> FrontendKind {
    match frontend.kind {
        model::FrontendKind::ClusterIp => FrontendKind::ClusterIp,
        model::FrontendKind::LoadBalancer => FrontendKind::LoadBalancer,
        model::FrontendKind::ExternalIp => FrontendKind::ExternalIp,
        model::FrontendKind::NodePort => FrontendKind::NodePort,
    }
}
