//! What the victim asks for, and what a neighbour may ask for.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::model::{
    Cidr, Conditions, EndpointSlice, Family, ObjectName, Protocol, Service, ServicePort,
    ServiceType, SliceEndpoint, SlicePort, TrafficPolicy,
};

pub const READY: Conditions = Conditions {
    ready: true,
    serving: true,
    terminating: false,
};

pub fn address(service: u8, endpoint: u8) -> IpAddr {
    IpAddr::from([10, 1, service, endpoint])
}

pub fn places(n: u8) -> [FrontendAt; 3] {
    let protocol = Protocol::Tcp;
    let at = |addr| FrontendAt::Port {
        addr: IpAddr::from(addr),
        port: 80,
        protocol,
    };
    [
        at([10, 96, 1, n]),
        at([192, 0, 2, n]),
        FrontendAt::NodePort {
            family: Family::Ipv4,
            port: 31_000 + u16::from(n),
            protocol,
        },
    ]
}

pub fn victim(n: u8) -> Service {
    Service {
        name: ObjectName::new("victim", format!("svc-{n}")),
        // Who comes later does not take his places.
        created: 1,
        kind: ServiceType::LoadBalancer,
        families: vec![Family::Ipv4],
        cluster_ips: vec![IpAddr::from([10, 96, 1, n])],
        external_ips: vec![],
        load_balancer_ips: vec![IpAddr::from([192, 0, 2, n])],
        source_ranges: ["10.0.0.0/8", "172.16.0.0/12"]
            .map(|range| range.parse().unwrap())
            .to_vec(),
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        health_check_node_port: None,
        asks: crate::model::Asks::default(),
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(31_000 + u16::from(n)),
        }],
    }
}

pub fn victims_slice(n: u8, endpoints: &[u8]) -> EndpointSlice {
    let name = format!("svc-{n}");
    EndpointSlice {
        name: ObjectName::new("victim", name.as_str()),
        service: name.into(),
        family: Family::Ipv4,
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            number: 8080,
        }],
        endpoints: endpoints.iter().map(|&e| endpoint(address(n, e))).collect(),
        ignored: vec![],
        triggered: None,
    }
}

pub fn endpoint(addr: IpAddr) -> SliceEndpoint {
    SliceEndpoint {
        addr,
        node: None,
        conditions: READY,
        weight: crate::model::WEIGHT,
        zone_hints: vec![],
        node_hints: vec![],
    }
}

pub fn hostile_name(n: u8) -> ObjectName {
    ObjectName::new("hostile", format!("svc-{n}"))
}

/// A size: small, about what is allowed, or far too large. Small ones leave room for others in the bounds of one object.
pub fn size() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0u16..3, 2 => 10u16..50, 1 => 200u16..400]
}

/// An address of his own, or one of the victim's.
pub fn hostile_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (0u8..4, any::<u8>()).prop_map(|(a, b)| IpAddr::from([203, 0, a, b])),
        1 => (0..SERVICES).prop_map(|n| IpAddr::from([10, 96, 1, n])),
        1 => (0..SERVICES).prop_map(|n| IpAddr::from([192, 0, 2, n])),
    ]
}

pub fn hostile_service() -> impl Strategy<Value = Service> {
    let addresses =
        || size().prop_flat_map(|size| vec(hostile_address(), usize::from(size).min(150)));
    (
        (
            0u8..6,
            2i64..5,
            size().prop_map(|n| n.max(1)),
            any::<bool>(),
        ),
        (addresses(), addresses(), addresses()),
        size(),
    )
        .prop_map(
            |((n, created, ports, dual), (cluster, external, lb), ranges)| Service {
                name: hostile_name(n),
                created,
                families: if dual {
                    vec![Family::Ipv4, Family::Ipv6]
                } else {
                    vec![Family::Ipv4]
                },
                cluster_ips: cluster,
                external_ips: external,
                load_balancer_ips: lb,
                source_ranges: (0..ranges)
                    .map(|n| {
                        Cidr::new(IpAddr::from([100, (n >> 8) as u8, n as u8, 0]), 24).unwrap()
                    })
                    .collect(),
                ports: (0..ports)
                    .map(|n| ServicePort {
                        name: format!("p{n}").into(),
                        protocol: Protocol::Tcp,
                        port: 80 + n,
                        // The victim's among them.
                        node_port: (n % 3 == 0).then_some(31_000 + n),
                    })
                    .collect(),
                ..victim(0)
            },
        )
}

pub fn hostile_slice() -> impl Strategy<Value = EndpointSlice> {
    (0u8..6, 0u8..6, 1u16..20, 1u16..60, any::<u8>()).prop_map(
        |(n, service, ports, endpoints, from)| EndpointSlice {
            name: hostile_name(n),
            service: format!("svc-{service}").into(),
            family: Family::Ipv4,
            ports: (0..ports)
                .map(|n| SlicePort {
                    name: format!("p{n}").into(),
                    protocol: Protocol::Tcp,
                    number: 9000 + n,
                })
                .collect(),
            endpoints: (0..endpoints)
                .map(|n| endpoint(IpAddr::from([10, 2 + (n >> 8) as u8, from, n as u8])))
                .collect(),
            ignored: vec![],
            triggered: None,
        },
    )
}
