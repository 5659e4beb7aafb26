//! Addresses that no object may name on this node.

use super::*;

fn endpoint(addr: &str) -> SliceEndpoint {
    SliceEndpoint {
        addr: ip(addr),
        ..pod("p1")
    }
}

fn told(store: &mut Store) -> Vec<String> {
    let warnings = store.take_warnings();
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn an_address_that_is_refused_costs_itself_and_is_told() {
    let exposed = Service {
        external_ips: vec![ip("203.0.113.1"), ip("168.63.129.16")],
        ..service("a")
    };
    let mut store = store([]).refusing("168.63.129.16".parse().unwrap());
    let holds = |store: &Store| {
        let warnings = store.warnings_of(&name("a"));
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    store.apply(Event::ServiceUpserted(exposed));
    let endpoints = vec![endpoint("168.63.129.16"), pod("p1")];
    store.apply(Event::SliceUpserted(slice("a-1", "a", endpoints)));
    let desired = &store.desired(&name("a"))[0];
    assert_eq!(internal(desired), "p1:8080");
    let addresses: Vec<_> = desired.frontends.iter().map(|at| at.addr).collect();
    assert_eq!(addresses, [Some(ip("10.96.0.1")), Some(ip("203.0.113.1"))]);
    let held = holds(&store);
    assert_eq!(told(&mut store), held);
    assert_eq!(
        held,
        [
            "Service spec/a is not served at 168.63.129.16: in 168.63.129.16/32 (--refused-addresses)",
            "EndpointSlice spec/a-1: endpoint 168.63.129.16 is not used: in 168.63.129.16/32 (--refused-addresses)",
        ]
    );
    store.apply(Event::SliceUpserted(slice("a-1", "a", vec![pod("p1")])));
    assert_eq!(holds(&store).len(), 1, "the slice is well");
    assert!(told(&mut store).is_empty());
}

#[test]
fn external_ips_that_are_switched_off_are_not_served() {
    let exposed = Service {
        external_ips: vec![ip("203.0.113.1")],
        ..service("a")
    };
    let mut store = store([]).serving_external_ips(false);
    store.apply(Event::ServiceUpserted(exposed));
    assert_eq!(store.desired(&name("a"))[0].frontends.len(), 1);
    assert_eq!(
        told(&mut store),
        [
            "Service spec/a is not served at 203.0.113.1: external IPs are switched off (--allow-service-external-ips)"
        ]
    );
}

#[test]
fn a_lost_address_is_a_warning_until_the_service_gets_it() {
    let rival = Service {
        created: -1,
        ..service("b")
    };
    let mut store = store([service("a"), rival].map(Event::ServiceUpserted));
    let lost = store.warnings_of(&name("a"));
    assert_eq!(lost, told_as(&mut store));
    assert!(store.warnings_of(&name("b")).is_empty());
    store.apply(Event::ServiceDeleted(name("b")));
    assert!(store.warnings_of(&name("a")).is_empty());
}

fn told_as(store: &mut Store) -> Vec<Warning> {
    store.take_warnings()
}

#[test]
fn a_node_that_nobody_knows_is_told_once() {
    let mut store = Store::new("nod1");
    store.apply(Event::SliceUpserted(slice("a-1", "a", vec![pod("p1")])));
    assert_eq!(store.take_stranger(), None, "the lists are not complete");
    store.apply(Event::Synced(Kind::Service));
    store.apply(Event::Synced(Kind::EndpointSlice));
    let stranger = store.take_stranger().unwrap().to_string();
    assert!(
        stranger.contains("\"nod1\"") && stranger.ends_with("Endpoints are on node1"),
        "{stranger}"
    );
    assert_eq!(store.take_stranger(), None, "it is told");
    for known in [
        Event::SliceUpserted(slice("a-1", "a", vec![pod("p2"), pod("p1")])),
        Event::NodeChanged(Node::named("node1")),
    ] {
        let mut store = Store::new("node1");
        for kind in [Kind::Service, Kind::EndpointSlice] {
            store.apply(Event::Synced(kind));
        }
        store.apply(known);
        store.apply(Event::SliceUpserted(slice("b-1", "b", vec![pod("p2")])));
        assert_eq!(store.take_stranger(), None);
    }
}

#[test]
fn a_broadcast_address_of_the_nodes_subnets_is_refused_while_it_is_one() {
    let exposed = Service {
        external_ips: vec![ip("10.1.255.255")],
        ..service("a")
    };
    let endpoints = vec![endpoint("10.1.255.255"), pod("p1")];
    let mut store = store([
        Event::ServiceUpserted(exposed),
        Event::SliceUpserted(slice("a-1", "a", endpoints)),
    ]);
    let seen = |store: &Store| {
        let desired = &store.desired(&name("a"))[0];
        (desired.endpoints.len(), desired.frontends.len())
    };
    assert_eq!(seen(&store), (2, 2));
    store.take_dirty();
    store.set_broadcasts([ip("10.1.255.255")].into());
    assert_eq!(store.take_dirty(), [name("a")].into());
    assert_eq!(seen(&store), (1, 1));
    store.set_broadcasts([ip("10.1.255.255")].into());
    assert!(store.take_dirty().is_empty(), "nothing changed");
    store.set_broadcasts([].into());
    assert_eq!(seen(&store), (2, 2));
}
