//! Single cases that a random sequence seldom meets.

use std::net::IpAddr;

use proxy_common::abi::{BackendId, FrontendRef, Generation};

use super::{machine::Machine, world::pod, *};
use crate::model::{
    Conditions, DesiredService, Endpoint, EndpointId, Family, Frontend, FrontendKind, ObjectName,
    OnEmpty, Protocol, Scope, ServicePortKey, TrafficPolicy,
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
            })
            .collect(),
        internal: scope.clone(),
        external: scope,
        cluster: all,
        has_any: !endpoints.is_empty(),
        affinity: None,
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
