//! Two services that claim one frontend.

use super::*;

fn claimant(service_name: &str, created: i64) -> Service {
    Service {
        created,
        ..service(service_name)
    }
}

fn has_frontend(store: &Store, service_name: &str) -> bool {
    !store.desired(&name(service_name))[0].frontends.is_empty()
}

fn names<const N: usize>(names: [&str; N]) -> Vec<ObjectName> {
    names.map(name).to_vec()
}

fn dirty(store: &mut Store) -> Vec<ObjectName> {
    store.take_dirty().into_iter().collect()
}

#[test]
fn the_older_service_owns_the_frontend_and_age_goes_before_name() {
    for (id, a, b, owner) in [
        ("same age: by name", 0, 0, "a"),
        ("a is older", 10, 20, "a"),
        ("b is older", 20, 10, "b"),
    ] {
        for order in [["a", "b"], ["b", "a"]] {
            let store = store(order.map(|name| {
                let created = if name == "a" { a } else { b };
                Event::ServiceUpserted(claimant(name, created))
            }));
            assert_eq!(has_frontend(&store, "a"), owner == "a", "{id}, {order:?}");
            assert_eq!(has_frontend(&store, "b"), owner == "b", "{id}, {order:?}");
        }
    }
}

#[test]
fn a_conflict_is_told_once_and_names_both_services() {
    let mut store = store([
        Event::ServiceUpserted(claimant("a", 10)),
        Event::ServiceUpserted(claimant("b", 5)),
    ]);
    let told = |store: &mut Store| -> Vec<String> {
        let warnings = store.take_warnings();
        warnings.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        told(&mut store),
        [
            "Service spec/a is not served at 10.96.0.1 port 80/TCP: Service spec/b claims it and comes first \
          (by age, then by name)"
        ]
    );
    store.apply(Event::ServiceUpserted(Service {
        affinity: Some(5),
        ..claimant("a", 10)
    }));
    assert!(told(&mut store).is_empty());
}

#[test]
fn when_the_owner_leaves_the_next_one_takes_over() {
    let mut store = store(["a", "b", "c"].map(|n| Event::ServiceUpserted(claimant(n, 0))));
    dirty(&mut store);

    store.apply(Event::ServiceDeleted(name("a")));
    assert_eq!(dirty(&mut store), names(["a", "b"]));
    assert!(has_frontend(&store, "b"));
    assert!(!has_frontend(&store, "c"));

    store.apply(Event::ServiceUpserted(Service {
        cluster_ips: vec![ip("10.96.0.2")],
        ..claimant("b", 0)
    }));
    assert_eq!(dirty(&mut store), names(["b", "c"]));
    assert!(has_frontend(&store, "c"));

    store.apply(Event::ServiceUpserted(claimant("a", 0)));
    assert_eq!(dirty(&mut store), names(["a", "c"]));
    assert!(!has_frontend(&store, "c"));
}

#[test]
fn what_differs_in_address_port_protocol_or_family_is_no_conflict() {
    let with_port = |port| Service {
        ports: vec![port],
        ..service("b")
    };
    let node_port = |service: Service, family| Service {
        families: vec![family],
        cluster_ips: vec![],
        ports: vec![ServicePort {
            node_port: Some(30000),
            ..port("", Protocol::Tcp, 80)
        }],
        ..service
    };
    for (id, a, b) in [
        (
            "address",
            service("a"),
            Service {
                cluster_ips: vec![ip("10.96.0.2")],
                ..service("b")
            },
        ),
        ("port", service("a"), with_port(port("", Protocol::Tcp, 81))),
        (
            "protocol",
            service("a"),
            with_port(port("", Protocol::Udp, 80)),
        ),
        (
            "family",
            node_port(service("a"), Family::Ipv4),
            node_port(service("b"), Family::Ipv6),
        ),
    ] {
        let mut store = store([Event::ServiceUpserted(a), Event::ServiceUpserted(b)]);
        assert!(has_frontend(&store, "a"), "{id}");
        assert!(has_frontend(&store, "b"), "{id}");
        assert!(store.take_warnings().is_empty(), "{id}");
    }
}

#[test]
fn of_two_ports_of_one_service_on_one_number_the_first_has_it() {
    let service = Service {
        ports: vec![port("x", Protocol::Tcp, 80), port("y", Protocol::Tcp, 80)],
        ..service("a")
    };
    let store = store([Event::ServiceUpserted(service)]);
    let desired = store.desired(&name("a"));
    assert_eq!(desired[0].frontends.len(), 1);
    assert!(desired[1].frontends.is_empty());
}
