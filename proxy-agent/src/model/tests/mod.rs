//! The model against the items of the behaviour specification, and against itself.
//!
//! The objects are those of the specification: pods p1, p1b, p1c on node1 (the own node, zone a), p2 and p2b on node2.

mod addresses;
mod claims;
mod decisions;
mod ports;
mod properties;
mod updates;

use std::net::IpAddr;

use super::*;

pub const READY: Conditions = conditions(true, true, false);
pub const UNREADY: Conditions = conditions(false, false, false);
pub const SERVING_ONLY: Conditions = conditions(false, true, false);
pub const READY_TERMINATING: Conditions = conditions(true, true, true);
pub const LEAVING: Conditions = conditions(false, true, true);
pub const GONE: Conditions = conditions(false, false, true);

const fn conditions(ready: bool, serving: bool, terminating: bool) -> Conditions {
    Conditions {
        ready,
        serving,
        terminating,
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn name(name: &str) -> ObjectName {
    ObjectName::new("spec", name)
}

/// A ClusterIP service with one unnamed TCP port 80.
pub fn service(service_name: &str) -> Service {
    Service {
        name: name(service_name),
        created: 0,
        kind: ServiceType::ClusterIp,
        families: vec![Family::Ipv4],
        cluster_ips: vec![ip("10.96.0.1")],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        health_check_node_port: None,
        asks: Asks::default(),
        ports: vec![port("", Protocol::Tcp, 80)],
    }
}

pub fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port: None,
    }
}

const PODS: [(&str, &str, &str); 6] = [
    ("p1", "10.1.0.1", "node1"),
    ("p1b", "10.1.0.2", "node1"),
    ("p1c", "10.1.0.3", "node1"),
    ("p2", "10.2.0.1", "node2"),
    ("p2b", "10.2.0.2", "node2"),
    ("p2v6", "fd00:2::1", "node2"),
];

pub fn pod(pod_name: &str) -> SliceEndpoint {
    let (_, addr, node) = PODS.iter().find(|(n, ..)| *n == pod_name).unwrap();
    SliceEndpoint {
        addr: ip(addr),
        node: Some((*node).into()),
        conditions: READY,
        weight: crate::model::WEIGHT,
        zone_hints: vec![],
        node_hints: vec![],
    }
}

pub fn is(conditions: Conditions, endpoint: SliceEndpoint) -> SliceEndpoint {
    SliceEndpoint {
        conditions,
        ..endpoint
    }
}

pub fn for_zones(zones: &[&str], endpoint: SliceEndpoint) -> SliceEndpoint {
    SliceEndpoint {
        zone_hints: zones.iter().map(|&z| z.into()).collect(),
        ..endpoint
    }
}

pub fn for_nodes(nodes: &[&str], endpoint: SliceEndpoint) -> SliceEndpoint {
    SliceEndpoint {
        node_hints: nodes.iter().map(|&n| n.into()).collect(),
        ..endpoint
    }
}

/// A slice of `service_name` with one unnamed TCP port 8080.
pub fn slice(slice_name: &str, service_name: &str, endpoints: Vec<SliceEndpoint>) -> EndpointSlice {
    EndpointSlice {
        name: name(slice_name),
        service: service_name.into(),
        family: endpoints
            .first()
            .map_or(Family::Ipv4, |e| Family::of(e.addr)),
        ports: vec![slice_port("", Protocol::Tcp, 8080)],
        endpoints,
        ignored: vec![],
        triggered: None,
    }
}

pub fn slice_port(name: &str, protocol: Protocol, number: u16) -> SlicePort {
    SlicePort {
        name: name.into(),
        protocol,
        number,
    }
}

pub fn node(zone: Option<&str>) -> Event {
    Event::NodeChanged(Node {
        zone: zone.map(Into::into),
        ..Node::named("node1")
    })
}

/// A store on node1, zone a, that is synced and has seen `events`.
pub fn store(events: impl IntoIterator<Item = Event>) -> Store {
    let mut store = Store::new("node1");
    store.apply(node(Some("a")));
    store.apply(Event::Synced(Kind::Service));
    store.apply(Event::Synced(Kind::EndpointSlice));
    for event in events {
        store.apply(event);
    }
    store
}

/// The endpoints that new connections to the ClusterIP use, as `p1:8080 p2:8080`, or `reject` or `drop`.
pub fn internal(desired: &DesiredService) -> String {
    describe(desired, &desired.internal)
}

/// The same for external traffic.
pub fn external(desired: &DesiredService) -> String {
    describe(desired, &desired.external)
}

fn describe(desired: &DesiredService, scope: &Scope) -> String {
    match (scope.endpoints.is_empty(), scope.on_empty) {
        (true, OnEmpty::Reject) => "reject".into(),
        (true, OnEmpty::Drop) => "drop".into(),
        (false, _) => describe_ids(desired, &scope.endpoints),
    }
}

pub fn describe_ids(desired: &DesiredService, ids: &[EndpointId]) -> String {
    let names: Vec<String> = ids
        .iter()
        .map(|&id| {
            let Endpoint { addr, port, .. } = desired.endpoint(id);
            let pod = PODS.iter().find(|(_, a, _)| ip(a) == *addr);
            format!("{}:{port}", pod.map_or("?", |(name, ..)| name))
        })
        .collect();
    names.join(" ")
}
