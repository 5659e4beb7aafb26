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
    store.apply(Event::ServiceUpserted(exposed));
    let endpoints = vec![endpoint("168.63.129.16"), pod("p1")];
    store.apply(Event::SliceUpserted(slice("a-1", "a", endpoints)));
    let desired = &store.desired(&name("a"))[0];
    assert_eq!(internal(desired), "p1:8080");
    let addresses: Vec<_> = desired.frontends.iter().map(|at| at.addr).collect();
    assert_eq!(addresses, [Some(ip("10.96.0.1")), Some(ip("203.0.113.1"))]);
    assert_eq!(
        told(&mut store),
        [
            "Service spec/a is not served at 168.63.129.16: in 168.63.129.16/32 (--refused-addresses)",
            "EndpointSlice spec/a-1: endpoint 168.63.129.16 is not used: in 168.63.129.16/32 (--refused-addresses)",
        ]
    );
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
