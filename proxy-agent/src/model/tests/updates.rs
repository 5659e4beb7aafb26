//! Which services an event makes dirty, and when.

use super::*;

fn dirty(store: &mut Store) -> Vec<String> {
    store
        .take_dirty()
        .into_iter()
        .map(|n| n.name.to_string())
        .collect()
}

#[test]
fn nothing_is_dirty_before_both_lists_are_complete() {
    for kinds in [
        [Kind::Service, Kind::EndpointSlice],
        [Kind::EndpointSlice, Kind::Service],
    ] {
        let mut store = Store::new("node1");
        store.apply(Event::ServiceUpserted(service("svc")));
        assert!(dirty(&mut store).is_empty());
        store.apply(Event::Synced(kinds[0]));
        assert!(dirty(&mut store).is_empty());
        assert!(!store.is_synced());
        store.apply(Event::Synced(kinds[1]));
        assert!(store.is_synced());
        assert_eq!(dirty(&mut store), ["svc"]);
        assert!(dirty(&mut store).is_empty());
    }
}

#[test]
fn an_event_touches_the_service_it_is_about_and_no_other() {
    let other = Service {
        cluster_ips: vec![ip("10.96.0.2")],
        ..service("other")
    };
    let mut store = store([
        Event::ServiceUpserted(service("svc")),
        Event::ServiceUpserted(other),
    ]);
    dirty(&mut store);
    let affine = Service {
        affinity: Some(1),
        ..service("svc")
    };
    let one = slice("svc-1", "svc", vec![pod("p1")]);
    let two = slice("svc-1", "svc", vec![pod("p1"), pod("p2")]);
    for (id, event, touched) in [
        (
            "service unchanged",
            Event::ServiceUpserted(service("svc")),
            vec![],
        ),
        (
            "service changed",
            Event::ServiceUpserted(affine),
            vec!["svc"],
        ),
        ("slice new", Event::SliceUpserted(one.clone()), vec!["svc"]),
        ("slice unchanged", Event::SliceUpserted(one.clone()), vec![]),
        (
            "slice changed",
            Event::SliceUpserted(two.clone()),
            vec!["svc"],
        ),
        (
            "slice moved to another service",
            Event::SliceUpserted(EndpointSlice {
                service: "other".into(),
                ..two
            }),
            vec!["other", "svc"],
        ),
        (
            "slice gone",
            Event::SliceDeleted(name("svc-1")),
            vec!["other"],
        ),
        ("slice unknown", Event::SliceDeleted(name("svc-1")), vec![]),
        (
            "slice of no service",
            Event::SliceUpserted(slice("none-1", "none", vec![pod("p1")])),
            vec![],
        ),
        (
            "service gone",
            Event::ServiceDeleted(name("svc")),
            vec!["svc"],
        ),
        (
            "service unknown",
            Event::ServiceDeleted(name("svc")),
            vec![],
        ),
        ("node unchanged", node(Some("a")), vec![]),
        ("N11 node in another zone", node(Some("b")), vec!["other"]),
    ] {
        store.apply(event);
        assert_eq!(dirty(&mut store), touched, "{id}");
    }
}

#[test]
fn a_service_finds_slices_that_came_before_it_and_after_it() {
    let service = Event::ServiceUpserted(service("svc"));
    let slice = Event::SliceUpserted(slice("svc-1", "svc", vec![pod("p1")]));
    for events in [[service.clone(), slice.clone()], [slice, service]] {
        let store = store(events);
        assert_eq!(internal(&store.desired(&name("svc"))[0]), "p1:8080", "A14");
    }
}

#[test]
fn a_service_that_is_gone_desires_nothing_and_comes_back_with_its_slices() {
    let mut store = store([
        Event::ServiceUpserted(service("svc")),
        Event::SliceUpserted(slice("svc-1", "svc", vec![pod("p1")])),
        Event::ServiceDeleted(name("svc")),
    ]);
    assert!(store.desired(&name("svc")).is_empty(), "A11, A12");
    store.apply(Event::ServiceUpserted(service("svc")));
    assert_eq!(internal(&store.desired(&name("svc"))[0]), "p1:8080", "A13");
}

#[test]
fn what_is_beyond_a_services_bounds_is_left_out_and_comes_back_with_room() {
    let bounds = Bounds {
        ports: 2,
        endpoints: 3,
        ..Bounds::default()
    };
    let mut store = store([]).with_bounds(bounds);
    let ports = |numbers: std::ops::Range<u16>| {
        let one = |n: u16| port(&n.to_string(), Protocol::Tcp, n);
        numbers.map(one).collect::<Vec<_>>()
    };
    let wide = Service {
        ports: ports(1..6),
        ..service("wide")
    };
    store.apply(Event::ServiceUpserted(wide.clone()));
    let targets = |n: u16| slice_port(&n.to_string(), Protocol::Tcp, 8000 + n);
    store.apply(Event::SliceUpserted(EndpointSlice {
        ports: (1..6).map(targets).collect(),
        ..slice("wide-1", "wide", vec![pod("p1"), pod("p1b")])
    }));
    let name = name("wide");
    let desired = store.desired(&name);
    let endpoints = |desired: &[DesiredService]| -> Vec<_> {
        let of = |port: &DesiredService| (port.endpoints.len(), port.left_out);
        desired.iter().map(of).collect()
    };
    assert_eq!(endpoints(&desired), [(2, 0), (1, 1)]);
    assert_eq!(store.ports_left_out(&name), 3);
    // Fewer of the ports that are left out are another state, though the rest is the same.
    store.take_dirty();
    store.apply(Event::ServiceUpserted(Service {
        ports: ports(1..4),
        ..wide.clone()
    }));
    assert_eq!(dirty(&mut store), ["wide"]);
    assert_eq!(store.ports_left_out(&name), 1);
    store.apply(Event::ServiceUpserted(Service {
        ports: ports(1..2),
        ..wide
    }));
    assert_eq!(store.ports_left_out(&name), 0);
    assert_eq!(endpoints(&store.desired(&name)), [(2, 0)]);
}

#[test]
fn an_address_beyond_the_bounds_goes_to_another_service() {
    let bounds = Bounds {
        ports: 1,
        ..Bounds::default()
    };
    let mut store = store([]).with_bounds(bounds);
    let both = vec![port("a", Protocol::Tcp, 80), port("b", Protocol::Tcp, 81)];
    store.apply(Event::ServiceUpserted(Service {
        ports: both,
        ..service("wide")
    }));
    store.apply(Event::ServiceUpserted(Service {
        ports: vec![port("", Protocol::Tcp, 81)],
        created: 1,
        ..service("other")
    }));
    assert_eq!(store.desired(&name("other"))[0].frontends.len(), 1);
}
