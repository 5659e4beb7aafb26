//! What is filled in, what is skipped and what is refused.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::model::{
    Conditions, EndpointSlice, Node, Service, ServicePort, ServiceType, SlicePort, TrafficPolicy,
};

fn convert_service(spec: Value) -> Result<Converted<Service>> {
    convert_service_object(json!({"metadata": {"name": "svc"}, "spec": spec}))
}

fn convert_service_object(object: Value) -> Result<Converted<Service>> {
    service(&serde_json::from_value(object).unwrap())
}

fn convert_slice(object: Value) -> Result<Converted<EndpointSlice>> {
    let mut whole = json!({
        "metadata": {"name": "svc-1", "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "IPv4",
    });
    whole
        .as_object_mut()
        .unwrap()
        .extend(object.as_object().unwrap().clone());
    endpoint_slice(&serde_json::from_value(whole).unwrap())
}

fn served<T: std::fmt::Debug>(converted: Result<Converted<T>>) -> T {
    match converted {
        Ok(Converted::Served(object)) => object,
        other => panic!("not served: {other:?}"),
    }
}

fn refusal<T: std::fmt::Debug>(converted: Result<Converted<T>>) -> String {
    converted.expect_err("is valid").to_string()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_service_gets_the_defaults_of_the_api_server() {
    let service = served(convert_service(json!({"ports": [{"port": 80}]})));
    assert_eq!(
        service,
        Service {
            name: ObjectName::new("default", "svc"),
            created: 0,
            kind: ServiceType::ClusterIp,
            families: vec![Family::Ipv4],
            cluster_ips: vec![],
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: vec![],
            external_policy: TrafficPolicy::Cluster,
            internal_policy: TrafficPolicy::Cluster,
            affinity: None,
            health_check_node_port: None,
            asks: model::Asks::default(),
            ports: vec![ServicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None
            }],
        }
    );
}

#[test]
fn every_field_of_a_service_is_read() {
    let service = served(convert_service_object(json!({
        "metadata": {"name": "svc", "namespace": "ns", "creationTimestamp": "1970-01-01T00:01:40Z"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "ipFamilies": ["IPv4", "IPv6"],
            "externalIPs": ["203.0.113.1"],
            "loadBalancerSourceRanges": [" 192.0.2.0/24 "],
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 6}},
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053, "targetPort": "dns"}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.2"},
            {"ip": "203.0.113.3", "ipMode": "VIP"},
            {"ip": "203.0.113.4", "ipMode": "Proxy"},
            {"hostname": "lb.example"},
        ]}},
    })));
    assert_eq!(
        service,
        Service {
            name: ObjectName::new("ns", "svc"),
            created: 100,
            kind: ServiceType::LoadBalancer,
            families: vec![Family::Ipv4, Family::Ipv6],
            cluster_ips: ips(&["10.96.0.1", "fd00:96::1"]),
            external_ips: ips(&["203.0.113.1"]),
            load_balancer_ips: ips(&["203.0.113.2", "203.0.113.3"]),
            source_ranges: vec!["192.0.2.0/24".parse().unwrap()],
            external_policy: TrafficPolicy::Local,
            internal_policy: TrafficPolicy::Local,
            affinity: Some(6),
            health_check_node_port: Some(31000),
            asks: model::Asks::default(),
            ports: vec![ServicePort {
                name: "dns".into(),
                protocol: Protocol::Udp,
                port: 53,
                node_port: Some(30053)
            }],
        },
        "K3, K4 among others"
    );
}

#[test]
fn the_families_follow_from_what_is_given() {
    use Family::{Ipv4, Ipv6};
    for (spec, families) in [
        (json!({}), vec![Ipv4]),
        (json!({"clusterIP": "fd00::1"}), vec![Ipv6]),
        (
            json!({"clusterIPs": ["fd00::1", "10.96.0.1"]}),
            vec![Ipv6, Ipv4],
        ),
        (json!({"ipFamilies": ["IPv6"]}), vec![Ipv6]),
        (
            json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"}),
            vec![Ipv4],
        ),
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            vec![Ipv4, Ipv6],
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00::1"}),
            vec![Ipv6, Ipv4],
        ),
    ] {
        let mut whole = spec.clone();
        whole["ports"] = json!([{"port": 80}]);
        assert_eq!(served(convert_service(whole)).families, families, "{spec}");
    }
}

#[test]
fn services_that_are_not_for_this_proxy_are_skipped() {
    let labelled = json!({
        "metadata": {"name": "svc", "labels": {"service.kubernetes.io/service-proxy-name": "other"}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    for (id, converted) in [
        ("A7", convert_service(json!({"clusterIP": "None"}))),
        ("A7 list", convert_service(json!({"clusterIPs": ["None"]}))),
        ("A8", convert_service_object(labelled)),
        (
            "A11",
            convert_service(json!({"type": "ExternalName", "externalName": "x.example"})),
        ),
    ] {
        assert!(
            matches!(converted, Ok(Converted::Skipped(_))),
            "{id}: {converted:?}"
        );
    }
}

#[test]
fn what_admission_would_refuse_is_refused_by_the_name_of_its_field() {
    let ports = |ports: Value| json!({"type": "LoadBalancer", "ports": ports});
    let with = |field: &str, value: Value| json!({"ports": [{"port": 80}], field: value});
    for (spec, expected) in [
        (
            ports(json!([{"port": 80, "nodePort": 70000}])),
            "spec.ports[0].nodePort: 70000 is not a port (1-65535)",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80}]}),
            "spec.ports[0].nodePort: is missing: type NodePort needs it where no API server allocates one",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: type ClusterIP has none (NodePort and LoadBalancer have)",
        ),
        (ports(json!([])), "spec.ports: is empty"),
        (
            ports(json!([{"port": 0}])),
            "spec.ports[0].port: 0 is not a port (1-65535)",
        ),
        (
            ports(json!([{"port": -1}])),
            "spec.ports[0].port: -1 is not a port (1-65535)",
        ),
        (
            ports(json!([{"port": 80, "protocol": "tcp"}])),
            r#"spec.ports[0].protocol: "tcp" is none of TCP, UDP, SCTP"#,
        ),
        (
            ports(json!([{"name": "a", "port": 80}, {"port": 81}])),
            "spec.ports[1].name: is missing: of several ports each needs one",
        ),
        (
            ports(json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}])),
            r#"spec.ports[1].name: "a" is there already"#,
        ),
        (
            ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}])),
            "spec.ports[1].port: 80/TCP is there already",
        ),
        (
            ports(
                json!([{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81, "nodePort": 30000}]),
            ),
            "spec.ports[1].nodePort: 30000/TCP is there already",
        ),
        (
            with("type", json!("Nodeport")),
            r#"spec.type: "Nodeport" is none of ClusterIP, NodePort, LoadBalancer, ExternalName"#,
        ),
        (
            with("clusterIP", json!("10.96.0")),
            r#"spec.clusterIP: "10.96.0" is not an IP address"#,
        ),
        (
            with("externalIPs", json!(["203.0.113.1", "127.0.0.1"])),
            "spec.externalIPs[1]: 127.0.0.1 cannot be a service's: a loopback address",
        ),
        (
            with("loadBalancerSourceRanges", json!(["192.0.2.1"])),
            r#"spec.loadBalancerSourceRanges[0]: "192.0.2.1" is not an address range (address/bits)"#,
        ),
        (
            with("ipFamilies", json!(["IPv5"])),
            r#"spec.ipFamilies[0]: "IPv5" is none of IPv4, IPv6"#,
        ),
        (
            with("ipFamilies", json!(["IPv4", "IPv4"])),
            "spec.ipFamilies[1]: IPv4 is there already",
        ),
        (
            json!({"clusterIP": "fd00::1", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]}),
            "spec.clusterIPs[0]: fd00::1 is IPv6, which is not in ipFamilies",
        ),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.2"], "ports": [{"port": 80}]}),
            r#"spec.clusterIPs[0]: "10.96.0.2" is not the same as clusterIP "10.96.0.1""#,
        ),
        (
            with("externalTrafficPolicy", json!("local")),
            r#"spec.externalTrafficPolicy: "local" is none of Cluster, Local"#,
        ),
        (
            json!({
                "ports": [{"port": 80}],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
            }),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not a timeout (1-86400 seconds)",
        ),
    ] {
        assert_eq!(refusal(convert_service(spec)), expected);
    }
    assert_eq!(
        refusal(convert_service_object(json!({"spec": {}}))),
        "metadata.name: is missing"
    );
    assert_eq!(
        refusal(convert_service_object(json!({"metadata": {"name": "svc"}}))),
        "spec: is missing"
    );
}

#[test]
fn names_that_an_api_server_would_refuse_are_refused_by_their_field() {
    let service = |name: &str, namespace: &str, port: &str| {
        refusal(convert_service_object(json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [{"name": port, "port": 80}]},
        })))
    };
    let slice = |change: Value| refusal(convert_slice(change));
    for (text, field) in [
        (
            service("a\nb", "ns", ""),
            "metadata.name: \"a\\nb\" is not a DNS label",
        ),
        (service("a", "n\u{1b}[2J", ""), "metadata.namespace: "),
        (service("a", "../ns", ""), "metadata.namespace: "),
        (service("a", "ns", "Http"), "spec.ports[0].name: "),
        (
            slice(
                json!({"metadata": {"name": "a\n", "labels": {"kubernetes.io/service-name": "svc"}}}),
            ),
            "metadata.name: ",
        ),
        (
            slice(
                json!({"metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "s\nvc"}}}),
            ),
            "metadata.labels[kubernetes.io/service-name]: ",
        ),
        (
            slice(json!({"ports": [{"name": "a b", "port": 1}]})),
            "ports[0].name: ",
        ),
        (
            slice(json!({"endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n\r"}]})),
            "endpoints[0].nodeName: ",
        ),
    ] {
        assert!(text.starts_with(field), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn addresses_and_ranges_with_leading_zeros_are_read_as_kube_proxy_reads_them() {
    let service = served(convert_service(json!({
        "clusterIP": "010.096.000.001",
        "clusterIPs": ["10.96.0.1"],
        "externalIPs": ["192.168.001.010"],
        "loadBalancerSourceRanges": ["010.0.0.0/08"],
        "ports": [{"port": 80}],
    })));
    assert_eq!(service.cluster_ips, ips(&["10.96.0.1"]));
    assert_eq!(service.external_ips, ips(&["192.168.1.10"]));
    assert_eq!(service.source_ranges, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn client_ip_affinity_without_a_timeout_holds_three_hours() {
    let spec = json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80}]});
    assert_eq!(served(convert_service(spec)).affinity, Some(10800));
}

#[test]
fn a_slice_is_read_with_the_defaults_of_the_api_server() {
    let slice = served(convert_slice(json!({
        "ports": [{"port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "all"}, {"port": 0}],
        "endpoints": [{
            "addresses": ["10.1.0.1", "10.1.0.2"],
            "nodeName": "node1",
            "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node1"}]},
        }],
    })));
    let port = |name: &str, protocol, number| SlicePort {
        name: name.into(),
        protocol,
        number,
    };
    assert_eq!(slice.service_name(), ObjectName::new("default", "svc"));
    assert_eq!(slice.family, Family::Ipv4);
    assert_eq!(
        slice.ports,
        [
            port("", Protocol::Tcp, 8080),
            port("dns", Protocol::Udp, 53)
        ],
        "B10"
    );
    let [endpoint] = slice.endpoints.as_slice() else {
        panic!("B9: only the first address counts");
    };
    assert_eq!(endpoint.addr, IpAddr::from([10, 1, 0, 1]));
    assert_eq!(endpoint.node.as_deref(), Some("node1"));
    assert_eq!(endpoint.zone_hints, ["a", "b"].map(Into::into));
    assert_eq!(endpoint.node_hints, ["node1"].map(Into::into));
}

#[test]
fn a_condition_that_is_not_given_counts_as_good() {
    for (id, given, (ready, serving, terminating)) in [
        ("D2", json!(null), (true, true, false)),
        (
            "D1",
            json!({"ready": false, "serving": false}),
            (false, false, false),
        ),
        (
            "D8",
            json!({"ready": false, "terminating": true}),
            (false, true, true),
        ),
        (
            "D6",
            json!({"ready": false, "serving": false, "terminating": true}),
            (false, false, true),
        ),
    ] {
        let slice = served(convert_slice(
            json!({"endpoints": [{"addresses": ["10.1.0.1"], "conditions": given}]}),
        ));
        let expected = Conditions {
            ready,
            serving,
            terminating,
        };
        assert_eq!(slice.endpoints[0].conditions, expected, "{id}");
    }
}

#[test]
fn slices_that_are_not_for_this_proxy_are_skipped() {
    let labels = |labels: Value| json!({"metadata": {"name": "svc-1", "labels": labels}});
    for (id, object) in [
        (
            "A9",
            labels(
                json!({"kubernetes.io/service-name": "svc", "service.kubernetes.io/headless": ""}),
            ),
        ),
        ("A10", labels(json!({}))),
        ("names", json!({"addressType": "FQDN"})),
    ] {
        let converted = convert_slice(object);
        assert!(
            matches!(converted, Ok(Converted::Skipped(_))),
            "{id}: {converted:?}"
        );
    }
}

#[test]
fn a_wrong_slice_is_refused_by_the_name_of_its_field() {
    for (object, expected) in [
        (
            json!({"addressType": "ipv4"}),
            r#"addressType: "ipv4" is none of IPv4, IPv6"#,
        ),
        (
            json!({"ports": [{"port": 65536}]}),
            "ports[0].port: 65536 is not a port (1-65535)",
        ),
        (
            json!({"endpoints": [{"addresses": []}]}),
            "endpoints[0].addresses: is empty",
        ),
        (
            json!({"endpoints": [{"addresses": ["fd00::1"]}]}),
            "endpoints[0].addresses[0]: fd00::1 is not of addressType IPv4",
        ),
        (
            json!({"endpoints": [{"addresses": ["10.1.0.256"]}]}),
            r#"endpoints[0].addresses[0]: "10.1.0.256" is not an IP address"#,
        ),
    ] {
        assert_eq!(refusal(convert_slice(object)), expected);
    }
}

#[test]
fn a_node_has_a_zone_and_its_internal_addresses_first() {
    let object = json!({
        "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "status": {"addresses": [
            {"type": "Hostname", "address": "node1"},
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "InternalIP", "address": "192.0.2.1"},
        ]},
    });
    assert_eq!(
        node(&serde_json::from_value(object).unwrap()),
        Ok(Node {
            name: "node1".into(),
            zone: Some("a".into()),
            addresses: ips(&["192.0.2.1", "203.0.113.1"]),
            leaving: false,
        })
    );
}

#[test]
fn a_node_is_leaving_when_it_is_deleted_or_tainted_for_it() {
    let leaving = |metadata: Value, spec: Value| {
        let object = json!({"metadata": metadata, "spec": spec});
        node(&serde_json::from_value(object).unwrap())
            .unwrap()
            .leaving
    };
    let named = json!({"name": "node1"});
    let deleted = json!({"name": "node1", "deletionTimestamp": "2026-01-02T03:04:05Z"});
    let taint = |key: &str| json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
    assert!(!leaving(named.clone(), json!({})));
    assert!(!leaving(
        named.clone(),
        taint("node.kubernetes.io/unschedulable")
    ));
    assert!(leaving(named, taint("ToBeDeletedByClusterAutoscaler")));
    assert!(leaving(deleted, json!({})));
}

#[test]
fn a_slice_tells_what_triggered_it_where_it_can_be_read() {
    let triggered = |text: &str| {
        let object = json!({"metadata": {
            "name": "svc-1",
            "labels": {"kubernetes.io/service-name": "svc"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": text},
        }});
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        served(convert_slice(object)).triggered.map(since)
    };
    assert_eq!(
        triggered("2026-01-02T03:04:05.25Z"),
        Some(Duration::from_millis(1_767_323_045_250))
    );
    assert_eq!(triggered("yesterday"), None);
}
