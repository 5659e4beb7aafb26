//! Sections A, B and O of the specification: frontends, ports, slices and families.

use super::*;

const HTTP: &str = "http";
const ADMIN: &str = "admin";

fn desired(service: Service, slices: Vec<EndpointSlice>) -> Vec<DesiredService> {
    let name = service.name.clone();
    let slices = slices.into_iter().map(Event::SliceUpserted);
    store([Event::ServiceUpserted(service)].into_iter().chain(slices)).desired(&name)
}

fn with_ports(ports: Vec<ServicePort>) -> Service {
    Service {
        ports,
        ..service("svc")
    }
}

fn slice_with(ports: Vec<SlicePort>, endpoints: Vec<SliceEndpoint>) -> EndpointSlice {
    EndpointSlice {
        ports,
        ..slice("svc-1", "svc", endpoints)
    }
}

#[test]
fn a_service_port_finds_its_slice_port_by_name_and_protocol_only() {
    use Protocol::{Tcp, Udp};
    for (id, ports, slice_ports, expected) in [
        (
            "B1 by name",
            vec![port(HTTP, Tcp, 80), port(ADMIN, Tcp, 81)],
            vec![slice_port(ADMIN, Tcp, 9090), slice_port(HTTP, Tcp, 8080)],
            vec!["p1:8080", "p1:9090"],
        ),
        (
            "B2 unnamed",
            vec![port("", Tcp, 80)],
            vec![slice_port("", Tcp, 8080)],
            vec!["p1:8080"],
        ),
        (
            "B3 another name, the same number",
            vec![port(HTTP, Tcp, 80)],
            vec![slice_port("web", Tcp, 80)],
            vec!["reject"],
        ),
        (
            "B4 another protocol",
            vec![port(HTTP, Tcp, 80)],
            vec![slice_port(HTTP, Udp, 80)],
            vec!["reject"],
        ),
        (
            "B5 one number, two protocols",
            vec![port("t", Tcp, 80), port("u", Udp, 80)],
            vec![slice_port("t", Tcp, 8080), slice_port("u", Udp, 9090)],
            vec!["p1:8080", "p1:9090"],
        ),
        (
            "B12 only one port has endpoints",
            vec![port(HTTP, Tcp, 80), port(ADMIN, Tcp, 81)],
            vec![slice_port(HTTP, Tcp, 8080)],
            vec!["p1:8080", "reject"],
        ),
    ] {
        let slices = vec![slice_with(slice_ports, vec![pod("p1")])];
        let got: Vec<_> = desired(with_ports(ports), slices)
            .iter()
            .map(internal)
            .collect();
        assert_eq!(got, expected, "{id}");
    }
}

#[test]
fn all_slices_of_a_service_are_merged_and_an_endpoint_counts_once() {
    let named = |slice_name: &str, endpoints| slice(slice_name, "svc", endpoints);
    for (id, slices, expected) in [
        (
            "B6 another target port in each slice",
            vec![
                named("svc-1", vec![pod("p1")]),
                EndpointSlice {
                    ports: vec![slice_port("", Protocol::Tcp, 9090)],
                    ..named("svc-2", vec![pod("p2")])
                },
            ],
            "p1:8080 p2:9090",
        ),
        (
            "B7 twice the same",
            vec![
                named("svc-1", vec![pod("p1"), pod("p2")]),
                named("svc-2", vec![pod("p1")]),
            ],
            "p1:8080 p2:8080",
        ),
        (
            "B8 ready wins over leaving",
            vec![
                named("svc-1", vec![is(LEAVING, pod("p1"))]),
                named("svc-2", vec![pod("p1"), is(LEAVING, pod("p2"))]),
            ],
            "p1:8080",
        ),
        (
            "B8 in the other order",
            vec![
                named("svc-1", vec![pod("p1")]),
                named("svc-2", vec![is(LEAVING, pod("p1"))]),
            ],
            "p1:8080",
        ),
        (
            "A15 slices of another service",
            vec![slice("other-1", "other", vec![pod("p1")])],
            "reject",
        ),
        (
            "A15 slices of another namespace",
            vec![EndpointSlice {
                name: ObjectName::new("elsewhere", "svc-1"),
                ..named("svc-1", vec![pod("p1")])
            }],
            "reject",
        ),
    ] {
        let desired = desired(service("svc"), slices);
        assert_eq!(internal(&desired[0]), expected, "{id}");
    }
}

#[test]
fn the_number_of_a_port_can_change_under_its_key() {
    let before = desired(service("svc"), vec![]);
    let after = desired(with_ports(vec![port("", Protocol::Tcp, 81)]), vec![]);
    assert_eq!(before[0].key, after[0].key, "B11");
    assert_eq!(before[0].frontends[0].port, 80);
    assert_eq!(after[0].frontends[0].port, 81);
}

#[test]
fn of_many_slices_those_that_stay_count() {
    let endpoint = |i: u16| SliceEndpoint {
        addr: IpAddr::from([10, 3, (i >> 8) as u8, i as u8]),
        ..pod("p2")
    };
    let mut store = store([Event::ServiceUpserted(service("svc"))]);
    for (n, range) in [1..50, 51..100, 101..150, 151..152].into_iter().enumerate() {
        let endpoints = range.map(endpoint).collect();
        store.apply(Event::SliceUpserted(slice(
            &format!("svc-{n}"),
            "svc",
            endpoints,
        )));
    }
    assert_eq!(store.desired(&name("svc"))[0].endpoints.len(), 148);
    for n in 0..3 {
        store.apply(Event::SliceDeleted(name(&format!("svc-{n}"))));
    }
    let left = &store.desired(&name("svc"))[0].endpoints;
    assert_eq!(left.len(), 1, "B13");
    assert_eq!(left[0].addr, ip("10.3.0.151"));
}

#[test]
fn endpoints_are_sorted_and_know_whether_they_are_local() {
    let hostless = SliceEndpoint {
        node: None,
        ..pod("p1b")
    };
    let slices = vec![slice("svc-1", "svc", vec![pod("p2"), hostless, pod("p1")])];
    let endpoints = &desired(service("svc"), slices)[0].endpoints;
    let got: Vec<_> = endpoints.iter().map(|e| (e.addr, e.local)).collect();
    assert_eq!(
        got,
        [
            (ip("10.1.0.1"), true),
            (ip("10.1.0.2"), false),
            (ip("10.2.0.1"), false)
        ]
    );
}

#[test]
fn endpoints_in_any_state_are_listed_for_the_flows_they_carry() {
    let slices = vec![slice(
        "svc-1",
        "svc",
        vec![pod("p1"), is(LEAVING, pod("p2")), is(GONE, pod("p2b"))],
    )];
    let desired = &desired(service("svc"), slices)[0];
    assert_eq!(desired.endpoints.len(), 3);
    assert_eq!(internal(desired), "p1:8080");
}

#[test]
fn an_endpoint_that_would_lend_the_nodes_identity_is_refused_with_a_reason() {
    let at = |addr| SliceEndpoint {
        addr: ip(addr),
        ..pod("p1")
    };
    let mut store = store([
        Event::ServiceUpserted(service("svc")),
        Event::SliceUpserted(slice(
            "svc-1",
            "svc",
            vec![at("127.0.0.1"), at("169.254.169.254"), pod("p1")],
        )),
    ]);
    assert_eq!(store.desired(&name("svc"))[0].endpoints.len(), 1);
    let warnings: Vec<_> = store
        .take_warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        [
            "EndpointSlice spec/svc-1: endpoint 127.0.0.1 is not used: a loopback address",
            "EndpointSlice spec/svc-1: endpoint 169.254.169.254 is not used: a link-local address",
        ]
    );
    assert!(store.take_warnings().is_empty());
}

#[test]
fn a_service_is_reached_at_its_addresses_and_node_ports() {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    let service = Service {
        kind: ServiceType::LoadBalancer,
        external_ips: vec![ip("203.0.113.1"), ip("203.0.113.9"), ip("2001:db8::1")],
        load_balancer_ips: vec![ip("203.0.113.9"), ip("203.0.113.8")],
        ports: vec![ServicePort {
            node_port: Some(30000),
            ..port("", Protocol::Tcp, 80)
        }],
        ..service("svc")
    };
    let at = |kind, addr| Frontend {
        kind,
        addr: Some(ip(addr)),
        port: 80,
    };
    assert_eq!(
        desired(service, vec![])[0].frontends,
        [
            at(ClusterIp, "10.96.0.1"),
            at(LoadBalancer, "203.0.113.8"),
            at(LoadBalancer, "203.0.113.9"),
            at(ExternalIp, "203.0.113.1"),
            Frontend {
                kind: NodePort,
                addr: None,
                port: 30000
            },
        ]
    );
}

#[test]
fn each_family_has_its_own_addresses_and_slices() {
    let v4 = slice("svc-v4", "svc", vec![pod("p1")]);
    let v6 = slice("svc-v6", "svc", vec![pod("p2v6")]);
    let dual = Service {
        families: vec![Family::Ipv4, Family::Ipv6],
        cluster_ips: vec![ip("10.96.0.1"), ip("fd00:96::1")],
        ..service("svc")
    };
    let only_v6 = Service {
        families: vec![Family::Ipv6],
        cluster_ips: vec![ip("fd00:96::1")],
        ..service("svc")
    };
    for (id, service, slices, expected) in [
        (
            "O1",
            &dual,
            vec![&v4, &v6],
            vec![("10.96.0.1", "p1:8080"), ("fd00:96::1", "p2v6:8080")],
        ),
        (
            "O5",
            &dual,
            vec![&v4],
            vec![("10.96.0.1", "p1:8080"), ("fd00:96::1", "reject")],
        ),
        (
            "O6",
            &only_v6,
            vec![&v4, &v6],
            vec![("fd00:96::1", "p2v6:8080")],
        ),
    ] {
        let slices = slices.into_iter().cloned().collect();
        let got: Vec<_> = desired(service.clone(), slices)
            .iter()
            .map(|d| (d.frontends[0].addr.unwrap().to_string(), internal(d)))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(vip, who)| (vip.to_owned(), who.to_owned()))
            .collect();
        assert_eq!(got, expected, "{id}");
    }
}

#[test]
fn affinity_and_policies_reach_the_desired_state() {
    let service = Service {
        affinity: Some(10800),
        external_policy: TrafficPolicy::Local,
        ..service("svc")
    };
    let desired = desired(service, vec![]);
    assert_eq!(desired[0].affinity, Some(10800));
    assert_eq!(desired[0].internal.policy, TrafficPolicy::Cluster);
    assert_eq!(desired[0].external.policy, TrafficPolicy::Local);
}

#[test]
fn of_two_slices_that_say_the_same_state_of_an_endpoint_the_first_by_name_counts() {
    let elsewhere = SliceEndpoint {
        node: Some("node2".into()),
        ..pod("p1")
    };
    let first = slice("svc-1", "svc", vec![pod("p1")]);
    let second = slice("svc-2", "svc", vec![elsewhere]);
    for slices in [vec![first.clone(), second.clone()], vec![second, first]] {
        assert!(desired(service("svc"), slices)[0].endpoints[0].local);
    }
}
