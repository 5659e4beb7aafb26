//! Whatever the events were, the outcome is that of the objects which are left.
//!
//! The worlds are small, so that services collide on addresses, slices change owners, and endpoints are duplicates.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_history_ends_where_a_fresh_store_with_the_final_objects_starts(history in vec(event(), 0..40)) {
        let mut old = store([]);
        for event in &history {
            old.apply(event.clone());
        }
        let fresh = store(last_words(&history));
        prop_assert_eq!(everything(&old), everything(&fresh));
    }

    #[test]
    fn the_order_of_objects_does_not_matter(
        (straight, shuffled) in vec(event(), 0..40)
            .prop_map(|history| last_words(&history))
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
    ) {
        prop_assert_eq!(everything(&store(straight)), everything(&store(shuffled)));
    }

    #[test]
    fn who_looks_only_at_dirty_services_misses_no_change(history in vec(event(), 0..40)) {
        let mut store = store([]);
        let mut seen: HashMap<ObjectName, Vec<DesiredService>> = HashMap::new();
        for event in history {
            store.apply(event);
            for name in store.take_dirty() {
                match store.desired(&name) {
                    gone if gone.is_empty() => seen.remove(&name),
                    desired => seen.insert(name, desired),
                };
            }
            prop_assert_eq!(&seen, &everything(&store));
        }
    }

    #[test]
    fn a_place_has_one_owner_and_scopes_list_usable_endpoints(history in vec(event(), 0..40)) {
        let store = store(history);
        let mut places = HashMap::new();
        for desired in everything(&store).into_values().flatten() {
            for frontend in &desired.frontends {
                let place = (frontend.addr, frontend.port, desired.key.protocol, desired.key.family);
                let other = places.insert(place, desired.key.clone());
                prop_assert_eq!(other, None, "{:?} has two owners", place);
            }
            prop_assert_eq!(desired.has_any, !desired.cluster.is_empty());
            for &id in desired.internal.endpoints.iter().chain(&desired.external.endpoints) {
                let conditions = desired.endpoint(id).conditions;
                prop_assert!(conditions.ready || conditions.is_fallback());
            }
        }
    }
}

fn everything(store: &Store) -> HashMap<ObjectName, Vec<DesiredService>> {
    store
        .services()
        .map(|s| (s.name.clone(), store.desired(&s.name)))
        .collect()
}

/// The last event about each object, without those that say that it is gone.
fn last_words(history: &[Event]) -> Vec<Event> {
    let mut last: HashMap<(u8, Option<ObjectName>), &Event> = HashMap::new();
    for event in history {
        let object = match event {
            Event::ServiceUpserted(service) => (0, Some(service.name.clone())),
            Event::ServiceDeleted(name) => (0, Some(name.clone())),
            Event::SliceUpserted(slice) => (1, Some(slice.name.clone())),
            Event::SliceDeleted(name) => (1, Some(name.clone())),
            Event::NodeChanged(_) => (2, None),
            Event::Synced(_) => continue,
        };
        last.insert(object, event);
    }
    last.into_values()
        .filter(|event| !matches!(event, Event::ServiceDeleted(_) | Event::SliceDeleted(_)))
        .cloned()
        .collect()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any_service().prop_map(Event::ServiceUpserted),
        1 => service_name().prop_map(|n| Event::ServiceDeleted(name(n))),
        6 => any_slice().prop_map(Event::SliceUpserted),
        1 => slice_name().prop_map(|n| Event::SliceDeleted(name(n))),
        1 => select(vec![None, Some("a"), Some("b")]).prop_map(node),
    ]
}

fn service_name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c"])
}

fn slice_name() -> impl Strategy<Value = &'static str> {
    select(vec!["s1", "s2", "s3", "s4"])
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn any_service() -> impl Strategy<Value = Service> {
    let families = select(vec![
        vec![Family::Ipv4],
        vec![Family::Ipv6],
        vec![Family::Ipv4, Family::Ipv6],
    ]);
    let some_ips = || {
        vec(
            select(vec![ip("10.96.0.1"), ip("10.96.0.2"), ip("fd00:96::1")]),
            0..3,
        )
    };
    let ports = vec(
        (
            select(vec![80, 81]),
            proptest::option::of(select(vec![30000, 30001])),
        ),
        1..3,
    );
    (
        (service_name(), 0..3i64, families, ports),
        (some_ips(), some_ips(), some_ips()),
        (policy(), policy()),
    )
        .prop_map(
            |((name, created, families, ports), (cluster, external, lb), policies)| Service {
                created,
                families,
                cluster_ips: cluster,
                external_ips: external,
                load_balancer_ips: lb,
                internal_policy: policies.0,
                external_policy: policies.1,
                ports: ports
                    .into_iter()
                    .zip(["", "second"])
                    .map(|((number, node_port), name)| ServicePort {
                        node_port,
                        ..port(name, Protocol::Tcp, number)
                    })
                    .collect(),
                ..service(name)
            },
        )
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = select(vec![
        READY,
        UNREADY,
        SERVING_ONLY,
        READY_TERMINATING,
        LEAVING,
        GONE,
    ]);
    let hints = || select(vec![vec![], vec!["a"], vec!["b"], vec!["a", "node1"]]);
    let endpoint = (
        select(vec!["p1", "p1b", "p2", "p2b"]),
        conditions,
        hints(),
        hints(),
    )
        .prop_map(|(name, conditions, zones, nodes)| {
            is(conditions, for_zones(&zones, for_nodes(&nodes, pod(name))))
        });
    let ports = vec((select(vec!["", "second"]), select(vec![8080, 9090])), 0..3);
    (slice_name(), service_name(), ports, vec(endpoint, 0..4)).prop_map(
        |(name, service, ports, endpoints)| EndpointSlice {
            ports: ports
                .into_iter()
                .map(|(name, number)| slice_port(name, Protocol::Tcp, number))
                .collect(),
            ..slice(name, service, endpoints)
        },
    )
}
