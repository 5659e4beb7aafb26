//! Tables full of what nobody wants any more: in the first sync they have room for what is wanted.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::btree_map, prelude::*};

use super::{
    cases::{limits, service},
    machine::Machine,
    *,
};
use crate::model::{Cidr, Family, Frontend, FrontendKind};

/// What one service asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wish {
    endpoints: u8,
    externals: u8,
    ranges: u8,
}

type Wishes = BTreeMap<u8, Wish>;

fn wishes() -> impl Strategy<Value = Wishes> {
    // Lists of more than three endpoints may find no run of slots that is long enough, whatever is free.
    let wish = (0u8..=3, 0u8..5, 0u8..5).prop_map(|(endpoints, externals, ranges)| Wish {
        endpoints,
        externals,
        ranges,
    });
    btree_map(0u8..40, wish, 1..30)
}

fn changes(wishes: &Wishes) -> Vec<Change> {
    let change = |(&n, wish): (&u8, &Wish)| {
        let endpoints: Vec<u8> = (1..=wish.endpoints).map(|e| n * 4 + e).collect();
        let (name, mut ports) = service(n, &endpoints);
        for port in &mut ports {
            port.frontends.extend((0..wish.externals).map(|e| Frontend {
                kind: FrontendKind::ExternalIp,
                addr: Some(IpAddr::from([203, 0, n, e])),
                port: 80,
            }));
            let range = |r| Cidr::new(IpAddr::from([n, r, 0, 0]), 16).unwrap();
            port.source_ranges = (0..wish.ranges).map(range).collect();
        }
        (name, ports)
    };
    wishes.iter().map(change).collect()
}

fn planner_over(room: Room, image: &Image, now: Instant) -> Planner {
    Planner::new(limits(room), room, HZ, NodeAddresses::default(), image, now)
}

/// The smallest tables that hold all of it.
fn room_for(wishes: &[Change]) -> Room {
    let now = Instant::now();
    let fits = |room| {
        let mut planner = planner_over(room, &Image::default(), now);
        planner.sync(now, wishes);
        planner.left_out().is_empty()
    };
    // Id 0 is nobody's.
    let services = (2..).find(|&services| fits(Room { services, ..ROOM }));
    let services = services.unwrap_or(ROOM.services);
    let backends = (2..).find(|&backends| fits(Room { services, backends }));
    Room {
        services,
        backends: backends.unwrap_or(ROOM.backends),
    }
}

/// What is left of maps that are copied into smaller ones.
fn cut(image: &mut Image, room: Room) {
    image.services.retain(|id, _| id.0 < room.services);
    image.backends.retain(|id, _| id.0 < room.backends);
    image.slots.retain(|slot, _| slot.0 < room.slots());
    let mut frontends = 0;
    image.frontends.retain(|at, _| {
        assert_eq!(at.family(), Family::Ipv4);
        frontends += 1;
        frontends <= room.frontends()
    });
    let ranges = std::mem::take(&mut image.ranges);
    image.ranges = ranges.into_iter().take(room.ranges() as usize).collect();
}

/// Is what is taken away taken before the one wait, and nothing of it used again before that?
///
/// Where there was no room, all that is new comes behind the wait. Where there was, the wait comes last, and what nobody claims is
/// closed behind it.
fn waits_between(ops: &[Op]) -> bool {
    let takes_away = |op: &Op| {
        matches!(
            op,
            Op::RemoveFrontend { .. } | Op::RemoveService { .. } | Op::RemoveRange { .. }
        )
    };
    let closes = |op: &Op| matches!(op, Op::Backend { entry, .. } if entry.flags.is_empty());
    let removes = |op: &Op| matches!(op, Op::RemoveService { .. });
    let parts: Vec<_> = ops.split(|op| *op == Op::AwaitPrograms).collect();
    match parts[..] {
        [all] => !all.iter().any(removes),
        [before, behind] => {
            (before.iter().all(takes_away) || behind.iter().all(closes))
                && !behind.iter().any(removes)
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stale_makes_room_in_the_first_sync(old in wishes(), live in wishes(), are_smaller in any::<bool>()) {
        // What is in both is as it was.
        let live: Wishes = live.into_iter().map(|(n, wish)| (n, *old.get(&n).unwrap_or(&wish))).collect();
        let (old, live) = (changes(&old), changes(&live));
        let now = Instant::now();
        let room = room_for(&live);
        let before = if are_smaller { ROOM } else { room };
        let mut machine = Machine::with_room(before);
        let plan = planner_over(before, &Image::default(), now).sync(now, &old);
        machine.apply(&plan.ops).map_err(TestCaseError::fail)?;
        let mut machine = machine.of_size(room);
        cut(&mut machine.image, room);

        let mut planner = planner_over(room, &machine.image, now);
        let plan = planner.sync(now, &live);
        prop_assert_eq!(planner.left_out().clone(), BTreeMap::new());
        prop_assert!(waits_between(&plan.ops));
        // No program has seen smaller maps yet.
        let written = if are_smaller { machine.apply_unseen(&plan.ops) } else { machine.apply(&plan.ops) };
        written.map_err(TestCaseError::fail)?;
        machine.apply(&planner.advance(now + SETTLED)).map_err(TestCaseError::fail)?;
        let desired = live.iter().flat_map(|(_, ports)| ports);
        prop_assert_eq!(naive::read(&machine.image), naive::expect(desired, &NodeAddresses::default()));
        prop_assert_eq!(naive::strays(&machine.image), 0);
    }
}

#[test]
fn a_service_that_is_still_wanted_keeps_its_id_though_another_needs_room_before_it() {
    let now = Instant::now();
    let room = Room {
        services: 4,
        backends: 8,
    };
    let mut machine = Machine::with_room(room);
    let old = [service(1, &[1]), service(2, &[2]), service(3, &[3])];
    let plan = planner_over(room, &Image::default(), now).sync(now, &old);
    machine.apply(&plan.ops).unwrap();
    let id_of = |machine: &Machine, n: u8| {
        let at = FrontendAt::Port {
            addr: IpAddr::from([10, 96, 0, n]),
            port: 80,
            protocol: crate::model::Protocol::Tcp,
        };
        machine.image.frontends[&at].service()
    };
    let before = id_of(&machine, 3);
    let mut planner = planner_over(room, &machine.image, now);
    let plan = planner.sync(now, &[service(8, &[8]), service(9, &[9]), service(3, &[3])]);
    machine.apply(&plan.ops).unwrap();
    assert_eq!(id_of(&machine, 3), before);
    assert!(planner.left_out().is_empty());
    let is_one_wait = plan
        .ops
        .iter()
        .filter(|op| **op == Op::AwaitPrograms)
        .count()
        == 1;
    assert!(is_one_wait, "{:?}", plan.ops);
}

#[test]
fn where_there_is_room_nothing_that_is_wanted_waits() {
    let now = Instant::now();
    let mut machine = Machine::default();
    let plan = planner_over(ROOM, &Image::default(), now).sync(now, &[service(1, &[1])]);
    machine.apply(&plan.ops).unwrap();
    let mut planner = planner_over(ROOM, &machine.image, now);
    let again = planner.sync(now, &[service(1, &[1])]);
    assert_eq!(again.ops, [], "nothing is stale");
    let mut planner = planner_over(ROOM, &machine.image, now);
    let plan = planner.sync(now, &[service(2, &[2])]);
    let [.., Op::AwaitPrograms, Op::Backend { entry, .. }] = &plan.ops[..] else {
        panic!("{:?}", plan.ops);
    };
    assert!(entry.flags.is_empty(), "{entry:?} is closed");
    machine.apply(&plan.ops).unwrap();
    assert_eq!(machine.sockets(), [(2, 80)]);
    assert_eq!(planner.next_due(), None, "nothing rests");
}
