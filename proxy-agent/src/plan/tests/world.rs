//! What a cluster may want: small pools of addresses and ports, so that things collide.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use proxy_common::abi::BackendId;

use super::{naive, *};
use crate::model::{
    Cidr, Conditions, DesiredService, Endpoint, EndpointId, Family, Frontend, FrontendKind,
    ObjectName, OnEmpty, Protocol, Scope, ServicePortKey, TrafficPolicy,
};

/// What every service asks for; a place may be asked for twice.
pub type World = BTreeMap<ObjectName, Vec<DesiredService>>;

#[derive(Clone, Debug)]
pub enum Step {
    /// Some services change at once; one without ports goes.
    Edit(Vec<(ObjectName, Vec<DesiredService>)>),
    Node(NodeAddresses),
    /// Milliseconds pass.
    Wait(u64),
    /// The agent ends after this share of the operations of its last call (in percent), and a new one reads the maps.
    Restart(usize),
    /// The agent ends, and the next one finds these maps empty.
    Lose(Vec<Lost>),
}

/// A map that the next agent does not find, or cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    Gate,
    Services,
    Slots,
    Backends,
    Frontends,
    Ranges,
}

impl Lost {
    pub const ALL: [Self; 6] = [
        Self::Gate,
        Self::Services,
        Self::Slots,
        Self::Backends,
        Self::Frontends,
        Self::Ranges,
    ];

    pub fn from(self, image: &mut Image) {
        match self {
            Self::Gate => image.gate.clear(),
            Self::Services => image.services.clear(),
            // The kernel's array is there, and all zeroes.
            Self::Slots => image
                .slots
                .values_mut()
                .for_each(|id| *id = BackendId::default()),
            Self::Backends => image.backends.clear(),
            Self::Frontends => image.frontends.clear(),
            Self::Ranges => image.ranges.clear(),
        }
    }
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        prop_oneof![
            8 => vec((name(), vec(service(), 0..3)), 1..3).prop_map(edit),
            1 => node().prop_map(Step::Node),
            2 => (0u64..4000).prop_map(Step::Wait),
            1 => (0usize..=100).prop_map(Step::Restart),
            1 => subsequence(Lost::ALL.to_vec(), 1..=Lost::ALL.len()).prop_map(Step::Lose),
        ],
        1..30,
    )
}

/// Gives each place to the first service that asks for it, as the model does.
pub fn resolve(world: &World) -> World {
    let mut taken = BTreeSet::new();
    let mut resolved = world.clone();
    for service in resolved.values_mut().flatten() {
        let key = service.clone();
        service
            .frontends
            .retain(|frontend| taken.insert(naive::at(&key, frontend)));
    }
    resolved
}

pub fn pod(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 244, 0, n))
}

fn edit(services: Vec<(ObjectName, Vec<DesiredService>)>) -> Step {
    Step::Edit(
        services
            .into_iter()
            .map(|(name, ports)| {
                let mut keys = BTreeSet::new();
                let ports = ports
                    .into_iter()
                    .map(|mut port| {
                        port.key.service = name.clone();
                        port
                    })
                    .filter(|port| keys.insert(port.key.clone()))
                    .collect();
                (name, ports)
            })
            .collect(),
    )
}

fn name() -> impl Strategy<Value = ObjectName> {
    (0u8..4).prop_map(|n| ObjectName::new("ns", format!("service-{n}")))
}

fn node() -> impl Strategy<Value = NodeAddresses> {
    let all: Vec<IpAddr> = vec![
        pod(1),
        pod(2),
        "10.96.0.1".parse().unwrap(),
        "192.0.2.1".parse().unwrap(),
    ];
    (subsequence(all.clone(), 0..=all.len()), any::<bool>()).prop_map(|(local, is_known)| {
        NodeAddresses {
            primary: local.iter().take(usize::from(is_known)).copied().collect(),
            local: local.into_iter().collect(),
        }
    })
}

fn service() -> impl Strategy<Value = DesiredService> {
    (
        (option::of(Just("http")), any::<bool>()),
        vec(frontend(), 0..4),
        vec(endpoint(), 0..5),
        [
            vec(any::<bool>(), 5),
            vec(any::<bool>(), 5),
            vec(any::<bool>(), 5),
        ],
        (any::<bool>(), option::of(1u32..100)),
        [any::<bool>(), any::<bool>()],
        option::of(1u32..1000),
        subsequence(vec!["10.0.0.0/8", "192.0.2.0/24"], 0..=2),
    )
        .prop_map(
            |(
                identity,
                mut frontends,
                mut endpoints,
                chosen,
                (alike, hold),
                drop,
                affinity,
                ranges,
            )| {
                frontends.sort();
                frontends.dedup();
                endpoints.sort_by_key(Endpoint::socket);
                endpoints.dedup_by_key(|endpoint| endpoint.socket());
                let list = |n: usize| -> Vec<EndpointId> {
                    let chosen = &chosen[if alike { 0 } else { n }];
                    let usable = |endpoint: &Endpoint| {
                        endpoint.conditions.ready || endpoint.conditions.serving
                    };
                    let all = endpoints.iter().zip(chosen).enumerate();
                    all.filter(|(_, (endpoint, chosen))| **chosen && usable(endpoint))
                        .map(|(index, _)| EndpointId(index as u32))
                        .collect()
                };
                let scope = |n: usize| Scope {
                    policy: TrafficPolicy::Cluster,
                    endpoints: list(n),
                    on_empty: if drop[n] {
                        OnEmpty::Drop
                    } else {
                        OnEmpty::Reject
                    },
                };
                DesiredService {
                    key: ServicePortKey {
                        service: ObjectName::new("", ""),
                        port_name: identity.0.unwrap_or_default().into(),
                        protocol: if identity.1 {
                            Protocol::Tcp
                        } else {
                            Protocol::Udp
                        },
                        family: Family::Ipv4,
                    },
                    frontends,
                    internal: scope(0),
                    external: scope(1),
                    cluster: list(2),
                    has_any: !endpoints.is_empty(),
                    endpoints,
                    affinity,
                    hold,
                    balancing: crate::model::Balancing::Random,
                    source_ranges: ranges
                        .into_iter()
                        .map(|range| range.parse::<Cidr>().unwrap())
                        .collect(),
                    left_out: 0,
                }
            },
        )
}

fn frontend() -> impl Strategy<Value = Frontend> {
    let addr = |c: u8| (1u8..4).prop_map(move |n| IpAddr::V4(Ipv4Addr::new(10, 96, c, n)));
    prop_oneof![
        (addr(0), 80u16..82).prop_map(|(addr, port)| (FrontendKind::ClusterIp, Some(addr), port)),
        (addr(0), 80u16..82).prop_map(|(addr, port)| (FrontendKind::ExternalIp, Some(addr), port)),
        (addr(1), 80u16..82).prop_map(|(addr, port)| (FrontendKind::ExternalIp, Some(addr), port)),
        (addr(1), 80u16..82).prop_map(|(addr, port)| (
            FrontendKind::LoadBalancer,
            Some(addr),
            port
        )),
        (30000u16..30003).prop_map(|port| (FrontendKind::NodePort, None, port)),
    ]
    .prop_map(|(kind, addr, port)| Frontend { kind, addr, port })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        1u8..6,
        8080u16..8082,
        [any::<bool>(), any::<bool>(), any::<bool>()],
        any::<bool>(),
    )
        .prop_map(|(n, port, [ready, serving, terminating], local)| Endpoint {
            addr: pod(n),
            port,
            local,
            conditions: Conditions {
                ready,
                serving,
                terminating,
            },
            weight: crate::model::WEIGHT,
        })
}
