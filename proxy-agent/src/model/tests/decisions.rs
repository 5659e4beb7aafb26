//! Sections D, E, F, K and N of the specification: which endpoints a scope uses.

use super::*;

/// Endpoints and policies in; what internal and external traffic meets out.
struct Case {
    id: &'static str,
    endpoints: Vec<SliceEndpoint>,
    internal_policy: TrafficPolicy,
    external_policy: TrafficPolicy,
    zone: Option<&'static str>,
    internal: &'static str,
    external: &'static str,
}

fn case(id: &'static str, endpoints: Vec<SliceEndpoint>) -> Case {
    Case {
        id,
        endpoints,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        zone: Some("a"),
        internal: "",
        external: "",
    }
}

impl Case {
    fn internal_local(self) -> Self {
        Self {
            internal_policy: TrafficPolicy::Local,
            ..self
        }
    }

    fn external_local(self) -> Self {
        Self {
            external_policy: TrafficPolicy::Local,
            ..self
        }
    }

    fn zone(self, zone: Option<&'static str>) -> Self {
        Self { zone, ..self }
    }

    fn both(self, expected: &'static str) -> Self {
        self.gives(expected, expected)
    }

    fn gives(self, internal: &'static str, external: &'static str) -> Self {
        Self {
            internal,
            external,
            ..self
        }
    }

    fn desired(&self) -> DesiredService {
        let service = Service {
            kind: ServiceType::LoadBalancer,
            internal_policy: self.internal_policy,
            external_policy: self.external_policy,
            ..service("svc")
        };
        let store = store([
            node(self.zone),
            Event::ServiceUpserted(service),
            Event::SliceUpserted(slice("svc-1", "svc", self.endpoints.clone())),
        ]);
        store.desired(&name("svc")).remove(0)
    }
}

fn check(cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let desired = case.desired();
        let got = (internal(&desired), external(&desired));
        let expected = (case.internal.to_owned(), case.external.to_owned());
        assert_eq!(got, expected, "{}", case.id);
    }
}

#[test]
fn the_conditions_of_an_endpoint_decide_whether_it_is_used() {
    check([
        case("D1 not ready", vec![pod("p1"), is(UNREADY, pod("p2"))]).both("p1:8080"),
        case("D2 ready", vec![pod("p1"), pod("p2")]).both("p1:8080 p2:8080"),
        case(
            "D3 ready though terminating",
            vec![pod("p1"), is(READY_TERMINATING, pod("p2"))],
        )
        .both("p1:8080 p2:8080"),
        case(
            "D4 only leaving ones",
            vec![is(LEAVING, pod("p1")), is(LEAVING, pod("p2"))],
        )
        .both("p1:8080 p2:8080"),
        case(
            "D5 ready and leaving",
            vec![pod("p1"), is(LEAVING, pod("p2"))],
        )
        .both("p1:8080"),
        case("D6 gone", vec![is(GONE, pod("p1"))]).both("reject"),
        case(
            "D7 serving, neither ready nor terminating",
            vec![is(SERVING_ONLY, pod("p1"))],
        )
        .both("reject"),
        case(
            "D9 of those that terminate, the serving ones",
            vec![is(LEAVING, pod("p1")), is(GONE, pod("p2"))],
        )
        .both("p1:8080"),
        case("E1 none at all", vec![]).both("reject"),
    ]);
}

#[test]
fn traffic_policies_choose_between_all_endpoints_and_those_of_this_node() {
    check([
        case("F1 F2 internal Local", vec![pod("p1"), pod("p2")])
            .internal_local()
            .gives("p1:8080", "p1:8080 p2:8080"),
        case("F3 F3b internal Local, none here", vec![pod("p2")])
            .internal_local()
            .gives("drop", "p2:8080"),
        case("F4 internal Local, none anywhere", vec![])
            .internal_local()
            .both("reject"),
        case("F4 ... only one that is gone", vec![is(GONE, pod("p2"))])
            .internal_local()
            .both("reject"),
        case("F5 F6 external Local", vec![pod("p1"), pod("p2")])
            .external_local()
            .gives("p1:8080 p2:8080", "p1:8080"),
        case("F9 external Local, none here", vec![pod("p2")])
            .external_local()
            .gives("p2:8080", "drop"),
        case(
            "F11 F11c external Local, leaving here, ready there",
            vec![is(LEAVING, pod("p1")), pod("p2")],
        )
        .external_local()
        .gives("p2:8080", "p1:8080"),
        case(
            "F12 external Local, gone here",
            vec![is(GONE, pod("p1")), pod("p2")],
        )
        .external_local()
        .gives("p2:8080", "drop"),
        case(
            "external Local, leaving there only: somewhere there is one",
            vec![is(LEAVING, pod("p2"))],
        )
        .external_local()
        .gives("p2:8080", "drop"),
        case("both Local", vec![pod("p1"), pod("p2")])
            .internal_local()
            .external_local()
            .both("p1:8080"),
    ]);
}

#[test]
fn under_external_local_the_short_circuit_of_own_pods_keeps_all_endpoints() {
    let case = case("F7 F8 F10", vec![pod("p2")]).external_local();
    let desired = case.desired();
    assert_eq!(external(&desired), "drop");
    assert_eq!(describe_ids(&desired, &desired.cluster), "p2:8080");
    assert!(desired.has_any);
}

#[test]
fn topology_hints_narrow_the_cluster_endpoints_and_never_to_nothing() {
    let hinted = |zone, pod_name| for_zones(&[zone], pod(pod_name));
    check([
        case(
            "N1 one for our zone",
            vec![hinted("b", "p1"), hinted("a", "p2")],
        )
        .both("p2:8080"),
        case(
            "N2 one without a hint",
            vec![hinted("b", "p1"), hinted("a", "p2"), pod("p2b")],
        )
        .both("p1:8080 p2:8080 p2b:8080"),
        case(
            "N3 none for our zone",
            vec![hinted("b", "p1"), hinted("c", "p2")],
        )
        .both("p1:8080 p2:8080"),
        case(
            "N4 several zones in a hint",
            vec![hinted("b", "p1"), for_zones(&["b", "a"], pod("p2"))],
        )
        .both("p2:8080"),
        case(
            "N5 node hints win",
            vec![
                for_nodes(&["node2"], hinted("a", "p1")),
                for_nodes(&["node1"], hinted("b", "p2")),
            ],
        )
        .both("p2:8080"),
        case(
            "N6 node hints, none for us: zones",
            vec![
                for_nodes(&["node2"], hinted("a", "p1")),
                for_nodes(&["node3"], hinted("b", "p2")),
            ],
        )
        .both("p1:8080"),
        case(
            "N6 a node hint missing: zones",
            vec![for_nodes(&["node1"], hinted("b", "p1")), hinted("a", "p2")],
        )
        .both("p2:8080"),
        case(
            "N7 a hint for our zone on one that is not ready",
            vec![hinted("b", "p1"), is(UNREADY, hinted("a", "p2"))],
        )
        .both("p1:8080"),
        case(
            "N8 no hint on one that is not ready",
            vec![
                hinted("a", "p1"),
                hinted("b", "p2"),
                is(UNREADY, pod("p2b")),
            ],
        )
        .both("p1:8080"),
        case(
            "N9 Local knows no hints",
            vec![hinted("b", "p1"), hinted("a", "p2")],
        )
        .external_local()
        .gives("p2:8080", "p1:8080"),
        case(
            "N11 another zone",
            vec![hinted("b", "p1"), hinted("a", "p2")],
        )
        .zone(Some("b"))
        .both("p1:8080"),
        case("N12 no zone", vec![hinted("b", "p1"), hinted("a", "p2")])
            .zone(None)
            .both("p1:8080 p2:8080"),
        case(
            "N15 the one of our zone is leaving",
            vec![is(LEAVING, hinted("a", "p1")), hinted("b", "p2")],
        )
        .both("p2:8080"),
        case(
            "N16 all are leaving",
            vec![
                is(LEAVING, hinted("a", "p1")),
                is(LEAVING, hinted("b", "p2")),
            ],
        )
        .both("p1:8080 p2:8080"),
    ]);
}

#[test]
fn source_ranges_count_by_family_and_a_zero_range_admits_all() {
    for (id, ranges, expected) in [
        ("K5", vec!["192.0.2.0/24"], vec!["192.0.2.0/24"]),
        (
            "K5 sorted, once",
            vec!["198.51.100.0/24", "192.0.2.0/24", "192.0.2.0/24"],
            vec!["192.0.2.0/24", "198.51.100.0/24"],
        ),
        ("K7", vec!["192.0.2.0/24", "0.0.0.0/0"], vec![]),
        (
            "K7 of the other family",
            vec!["192.0.2.0/24", "::/0"],
            vec!["192.0.2.0/24"],
        ),
        ("K8", vec!["2001:db8::/32"], vec![]),
    ] {
        let parse = |texts: Vec<&str>| -> Vec<Cidr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let service = Service {
            source_ranges: parse(ranges),
            ..service("svc")
        };
        let desired = store([Event::ServiceUpserted(service)]).desired(&name("svc"));
        assert_eq!(desired[0].source_ranges, parse(expected), "{id}");
    }
}
