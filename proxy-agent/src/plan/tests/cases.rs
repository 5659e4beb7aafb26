//! Single cases that a random sequence seldom meets.

use std::net::IpAddr;

use proxy_common::abi::{BackendId, FrontendRef, Generation, ServiceFlags};

use super::{machine::Machine, world::pod, *};
use crate::model::{
    Balancing, Conditions, DesiredService, Endpoint, EndpointId, Family, Frontend, FrontendKind,
    ObjectName, OnEmpty, Protocol, Scope, ServicePortKey, TrafficPolicy, WEIGHT,
};

/// A service with a ClusterIP and ready endpoints.
pub fn service(n: u8, endpoints: &[u8]) -> Change {
    let name = ObjectName::new("ns", format!("service-{n}"));
    let all: Vec<EndpointId> = (0..endpoints.len() as u32).map(EndpointId).collect();
    let scope = Scope {
        policy: TrafficPolicy::Cluster,
        endpoints: all.clone(),
        on_empty: OnEmpty::Reject,
    };
    let desired = DesiredService {
        key: ServicePortKey {
            service: name.clone(),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
        },
        frontends: vec![Frontend {
            kind: FrontendKind::ClusterIp,
            addr: Some(IpAddr::from([10, 96, 0, n])),
            port: 80,
        }],
        endpoints: endpoints
            .iter()
            .map(|&n| Endpoint {
                addr: pod(n),
                port: 80,
                local: false,
                conditions: Conditions {
                    ready: true,
                    serving: true,
                    terminating: false,
                },
                weight: WEIGHT,
            })
            .collect(),
        internal: scope.clone(),
        external: scope,
        cluster: all,
        has_any: !endpoints.is_empty(),
        affinity: None,
        balancing: Balancing::Random,
        hold: None,
        source_ranges: Vec::new(),
        left_out: 0,
    };
    (name, vec![desired])
}

pub const fn limits(room: Room) -> Limits {
    Limits { room, ..LIMITS }
}

pub fn planner(limits: Limits, now: Instant) -> Planner {
    let node = NodeAddresses::default();
    Planner::new(limits, limits.room, HZ, node, &Image::default(), now)
}

#[test]
fn scopes_with_the_same_endpoints_share_their_slots() {
    let now = Instant::now();
    let mut planner = planner(LIMITS, now);
    let ops = planner.update(now, &[service(1, &[1, 2, 3])]).ops;
    let slots = ops.iter().filter(|op| matches!(op, Op::Slots { .. }));
    assert_eq!(slots.count(), 1);
}

#[test]
fn one_changed_endpoint_costs_one_backend_one_list_and_one_service() {
    let now = Instant::now();
    let mut planner = planner(LIMITS, now);
    for n in 1..100 {
        planner.update(now, &[service(n, &[1, 2, 3])]);
    }
    let ops = planner.update(now, &[service(50, &[1, 2, 4])]).ops;
    let names: Vec<&str> = ops
        .iter()
        .map(|op| match op {
            Op::Gate { .. } => "gate",
            Op::Backend { .. } => "backend",
            Op::Slots { .. } => "slots",
            Op::Service { .. } => "service",
            _ => "other",
        })
        .collect();
    assert_eq!(names, ["gate", "backend", "slots", "service"]);
}

#[test]
fn a_backend_is_closed_soon_after_its_service_and_its_id_rests_long() {
    let now = Instant::now();
    let mut planner = planner(
        limits(Room {
            backends: 3,
            ..ROOM
        }),
        now,
    );
    let mut machine = Machine::default();
    machine
        .apply(&planner.update(now, &[service(1, &[1, 2])]).ops)
        .unwrap();
    let plan = planner.update(now, &[service(1, &[2])]);
    assert!(
        !plan
            .ops
            .iter()
            .any(|op| matches!(op, Op::Backend { .. } if closes(op)))
    );
    machine.apply(&plan.ops).unwrap();

    let soon = now + Duration::from_millis(20);
    let ops = planner.advance(soon);
    assert!(matches!(ops.as_slice(), [op] if closes(op)), "{ops:?}");
    machine.apply(&ops).unwrap();

    assert_eq!(planner.update(soon, &[service(1, &[2, 3])]).ops, []);
    let left_out: Vec<_> = planner.left_out().values().cloned().collect();
    let why = Some(Shortage::Full(Table::Backends));
    let one = LeftOut {
        endpoints: 1,
        why,
        ..LeftOut::default()
    };
    assert_eq!(left_out, [one], "the id rests");
    assert!(!planner.take_freed());

    let late = now + SETTLED;
    planner.advance(late);
    assert!(planner.take_freed());
    let plan = planner.update(late, &[service(1, &[2, 3])]);
    assert!(planner.left_out().is_empty());
    machine.apply(&plan.ops).unwrap();
    assert_eq!(
        machine.image.backends[&BackendId(1)].generation,
        Generation(2)
    );
}

fn closes(op: &Op) -> bool {
    matches!(op, Op::Backend { entry, .. } if entry.flags.is_empty() && entry.socket.ip() == pod(1))
}

#[test]
fn a_frontend_that_moves_between_services_is_never_away() {
    let now = Instant::now();
    for order in [[0, 1], [1, 0]] {
        let mut planner = planner(LIMITS, now);
        let (mut from, mut to) = (service(1, &[1]), service(2, &[2]));
        planner.update(now, &[from.clone(), to.clone()]);
        let moved = from.1[0].frontends.remove(0);
        to.1[0].frontends.insert(0, moved);
        let changes = [from, to];
        let ops = planner.update(now, &order.map(|i| changes[i].clone())).ops;
        let frontends: Vec<&Op> = ops
            .iter()
            .filter(|op| matches!(op, Op::Frontend { .. } | Op::RemoveFrontend { .. }))
            .collect();
        assert!(
            matches!(
                frontends.as_slice(),
                [Op::Frontend {
                    to: FrontendRef(_),
                    ..
                }]
            ),
            "{frontends:?}"
        );
    }
}

/// The services' lists of the last operations, and what is left out.
fn lists(ops: &[Op]) -> Vec<usize> {
    let lists = ops.iter().filter_map(|op| match op {
        Op::Slots { backends, .. } => Some(backends.len()),
        _ => None,
    });
    lists.collect()
}

fn balanced(how: Balancing, weights: &[u16]) -> Change {
    let numbers: Vec<u8> = (1..).take(weights.len()).collect();
    let (name, mut all) = service(1, &numbers);
    all[0].balancing = how;
    for (endpoint, weight) in all[0].endpoints.iter_mut().zip(weights) {
        endpoint.weight = *weight;
    }
    (name, all)
}

#[test]
fn a_list_is_as_the_balancing_asks_and_a_flag_says_what_the_hash_is_over() {
    let room = Room {
        services: 8,
        backends: 100_000,
    };
    for (how, weights, len, flags) in [
        (Balancing::Random, &[1, 1, 1][..], 3, ServiceFlags::empty()),
        (Balancing::Random, &[2, 1, 1], 4, ServiceFlags::empty()),
        (Balancing::Maglev, &[1, 1, 1], 8191, ServiceFlags::BY_CLIENT),
        (
            Balancing::SourceHash,
            &[1, 1],
            1021,
            ServiceFlags::BY_CLIENT | ServiceFlags::BY_ADDRESS,
        ),
    ] {
        let now = Instant::now();
        let mut planner = planner(limits(room), now);
        let ops = planner.update(now, &[balanced(how, weights)]).ops;
        assert_eq!(lists(&ops), [len], "{how}");
        let value = ops.iter().find_map(|op| match op {
            Op::Service { value, .. } => Some(value),
            _ => None,
        });
        assert_eq!(value.unwrap().flags, flags, "{how}");
        assert!(planner.left_out().is_empty());
        // What stands is not written again.
        let ops = planner.update(now, &[balanced(how, weights)]).ops;
        assert!(ops.is_empty(), "{how}: {ops:?}");
    }
}

#[test]
fn where_there_is_no_room_for_a_table_the_service_is_served_by_a_smaller_one() {
    for (backends, len) in [(4000, 8191), (1000, 1021), (100, 3)] {
        let now = Instant::now();
        let mut planner = planner(
            limits(Room {
                services: 8,
                backends,
            }),
            now,
        );
        let ops = planner
            .update(now, &[balanced(Balancing::Maglev, &[1, 1, 1])])
            .ops;
        assert_eq!(lists(&ops), [len], "{backends}");
        let left_out: Vec<_> = planner.left_out().values().collect();
        if len == 8191 {
            assert!(left_out.is_empty());
        } else {
            assert_eq!(left_out[0].to_string(), "1 lists of full length");
        }
    }
}
