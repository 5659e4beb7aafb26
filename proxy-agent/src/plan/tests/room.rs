//! Tables that are too small for what is wanted: what fits is served, what does not is told, and room is used again.

use std::net::IpAddr;

use super::{
    cases::{limits, planner, service},
    machine::Machine,
    *,
};
use crate::model::{Cidr, DesiredService, FrontendKind, ObjectName};

/// What a planner says is left out, in its own words.
fn told(planner: &Planner) -> Vec<String> {
    let all = planner.left_out().iter();
    all.map(|(name, left_out)| {
        let why = left_out.why.map(|why| why.to_string());
        format!("{name}: {left_out}: {}", why.unwrap_or_default())
    })
    .collect()
}

/// The same service in another namespace.
fn of(namespace: &str, (name, mut ports): Change) -> Change {
    let name = ObjectName::new(namespace, name.name);
    for port in &mut ports {
        port.key.service = name.clone();
    }
    (name, ports)
}

fn edited(change: Change, edit: impl Fn(&mut DesiredService)) -> Change {
    let (name, mut ports) = change;
    ports.iter_mut().for_each(edit);
    (name, ports)
}

#[test]
fn a_service_that_there_is_no_id_for_changes_nothing() {
    let now = Instant::now();
    let mut planner = planner(
        limits(Room {
            services: 2,
            ..ROOM
        }),
        now,
    );
    planner.update(now, &[service(1, &[1, 2])]);
    assert_eq!(planner.update(now, &[service(2, &[1, 2])]).ops, []);
    let words = "ns/service-2: 1 ports: there is no room for more service ports (--max-services)";
    assert_eq!(told(&planner), [words]);
    planner.update(now, &[(service(1, &[]).0, vec![])]);
    planner.advance(now + SETTLED);
    assert!(planner.take_freed());
    planner.update(now + SETTLED, &[service(2, &[1, 2])]);
    assert_eq!(told(&planner), [""; 0]);
}

#[test]
fn of_the_endpoints_that_there_is_no_room_for_those_that_stand_stay_and_those_that_go_go() {
    let now = Instant::now();
    let mut machine = Machine::default();
    let mut planner = planner(
        limits(Room {
            backends: 4,
            ..ROOM
        }),
        now,
    );
    let mut write = |planner: &mut Planner, change| {
        machine.apply(&planner.update(now, &[change]).ops).unwrap();
        machine.sockets()
    };
    let all = |numbers: &[u8]| -> Vec<_> { numbers.iter().map(|n| (*n, 80)).collect() };
    assert_eq!(write(&mut planner, service(1, &[3, 4, 5])), all(&[3, 4, 5]));
    // 4 goes at once, 1 and 2 wait.
    assert_eq!(write(&mut planner, service(1, &[1, 2, 3, 5])), all(&[3, 5]));
    let words = "ns/service-1: 2 endpoints: there is no room for more endpoints (--max-backends)";
    assert_eq!(told(&planner), [words]);
}

#[test]
fn one_namespace_has_no_more_than_its_share_whatever_is_free() {
    let now = Instant::now();
    let mut planner = planner(
        Limits {
            namespace_share: 50,
            room: Room {
                services: 16,
                backends: 16,
            },
        },
        now,
    );
    let many: Vec<u8> = (1..=12).collect();
    planner.update(now, &[of("greedy", service(1, &many))]);
    let words = "greedy/service-1: 4 endpoints: the namespace has its share of endpoints (--namespace-share)";
    assert_eq!(told(&planner), [words]);
    // Two are kept for those who have next to nothing.
    planner.update(now, &[of("modest", service(2, &many[..6]))]);
    assert_eq!(told(&planner), [words], "the other is served whole");
    // What rests counts as well: a namespace that changes quickly takes nothing from others.
    for round in 0..100_u8 {
        let endpoints: Vec<u8> = (0..8).map(|n| 20 + (round % 2) * 8 + n).collect();
        planner.update(now, &[of("greedy", service(1, &endpoints))]);
    }
    planner.update(now, &[of("modest", service(2, &[]))]);
    planner.advance(now + SETTLED);
    let room = now + SETTLED;
    planner.update(room, &[of("modest", service(2, &many[..6]))]);
    assert!(!told(&planner).iter().any(|said| said.contains("modest")));
}

#[test]
fn tables_grow_by_doubling_until_their_limit() {
    let now = Instant::now();
    let room = |services, backends| Room { services, backends };
    let limits = Limits {
        room: room(4096, 5000),
        ..LIMITS
    };
    let node = NodeAddresses::default();
    let image = Image::default();
    let mut planner = Planner::new(limits, room(2048, 1024), HZ, node, &image, now);
    let many: Vec<u8> = (1..=250).collect();
    let mut sizes = Vec::new();
    for n in 1..=20 {
        let plan = planner.update(now, &[service(n, &many)]);
        sizes.push(plan.room.backends);
        assert_eq!(plan.room.services, 2048);
    }
    let mut steps = sizes.clone();
    steps.dedup();
    assert_eq!(steps, [1024, 2048, 4096, 5000]);
    assert_eq!(told(&planner).len(), 1, "the last of them");
}

#[test]
fn a_frontend_takes_the_room_of_one_that_goes_with_it() {
    // Eight addresses; the refusal of the ClusterIP is one of them.
    let now = Instant::now();
    let room = Room {
        services: 2,
        ..ROOM
    };
    let mut machine = Machine::with_room(room);
    let mut planner = planner(limits(room), now);
    let at = |port| {
        edited(service(1, &[1]), move |desired| {
            let address = |n| IpAddr::from([203, 0, 113, n]);
            let external = (1..=6).map(|n| crate::model::Frontend {
                kind: FrontendKind::ExternalIp,
                addr: Some(address(n)),
                port,
            });
            desired.frontends.extend(external);
        })
    };
    for port in [80, 81, 82] {
        machine
            .apply(&planner.update(now, &[at(port)]).ops)
            .unwrap();
        assert_eq!(told(&planner), [""; 0]);
        assert_eq!(machine.image.frontends.len(), 8);
    }
}

#[test]
fn a_range_takes_the_room_of_another_only_when_that_is_gone() {
    let now = Instant::now();
    let room = Room {
        services: 2,
        ..ROOM
    };
    let mut machine = Machine::with_room(room);
    let mut planner = planner(limits(room), now);
    let ranged = |from: u8, to: u8| {
        edited(service(1, &[1]), move |desired| {
            let range = |n| Cidr::new(IpAddr::from([n, 0, 0, 0]), 8).unwrap();
            desired.source_ranges = (from..to).map(range).collect();
        })
    };
    machine
        .apply(&planner.update(now, &[ranged(1, 9)]).ops)
        .unwrap();
    machine
        .apply(&planner.update(now, &[ranged(5, 13)]).ops)
        .unwrap();
    let words = "ns/service-1: 4 source ranges: there is no room for more IPv4 source ranges (--max-services)";
    assert_eq!(told(&planner), [words]);
    assert!(planner.take_freed());
    machine
        .apply(&planner.update(now, &[ranged(5, 13)]).ops)
        .unwrap();
    assert_eq!(told(&planner), [""; 0]);
    assert_eq!(machine.image.ranges.len(), 8);
}
