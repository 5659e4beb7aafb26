//! Which backend a new flow gets: the hash over its tuple, the scope that its client has, and session affinity.

use crate::world::*;
use proxy_common::{
    abi::{AffinityKey, BackendFlags, Extent, Generation, IfIndex, Service, ServiceFlags, Tuple},
    addr::{Addr, Be16, Ip4},
    edge::{hook::Hook, verdict::Verdict},
    reason::DropReason,
    service::select::{choice, hash, reduce},
};
use std::collections::HashMap;

/// Tuples that differ from `tuple` in one bit each.
fn neighbours<F: Net>(tuple: &Tuple<F::Addr>) -> Vec<Tuple<F::Addr>> {
    let mut all = Vec::new();
    let len = F::bytes(&tuple.src).len();
    for bit in 0..8 * len {
        let flip = |addr: &F::Addr| {
            let mut bytes = F::bytes(addr);
            bytes[bit / 8] ^= 1 << (bit % 8);
            F::from_bytes(&bytes)
        };
        all.push(Tuple {
            src: flip(&tuple.src),
            ..*tuple
        });
        all.push(Tuple {
            dst: flip(&tuple.dst),
            ..*tuple
        });
    }
    for bit in 0..16 {
        let flip = |port: Be16| Be16(port.0 ^ 1 << bit);
        all.push(Tuple {
            sport: flip(tuple.sport),
            ..*tuple
        });
        all.push(Tuple {
            dport: flip(tuple.dport),
            ..*tuple
        });
    }
    all
}

fn every_bit_of_a_tuple_changes_half_of_its_hash<F: Net>() {
    let mut distances = Vec::new();
    for port in 4000..4064 {
        let one = tuple::<F>((CLIENT, port), (NODE, NODE_PORT));
        let base = hash(&one, 1);
        assert_eq!(hash(&one, 1), base, "a hash is a function");
        distances.push(vec![(hash(&one, 2) ^ base).count_ones()]);
        let all = neighbours::<F>(&one);
        distances.push(
            all.iter()
                .map(|other| (hash(other, 1) ^ base).count_ones())
                .collect(),
        );
    }
    let of_a_seed: u32 = distances.iter().step_by(2).flatten().sum();
    assert!(
        (14..=18).contains(&(of_a_seed / 64)),
        "the seed changes {of_a_seed} of 2048 bits"
    );
    // Each bit of the tuple, over all tuples.
    for bit in 0..distances[1].len() {
        let changed: u32 = distances
            .iter()
            .skip(1)
            .step_by(2)
            .map(|all| all[bit])
            .sum();
        assert!(
            (12..=20).contains(&(changed / 64)),
            "bit {bit} changes {changed} of 2048 bits"
        );
    }
}

/// By all of the tuple, by the client's half, by its address.
fn a_choice_is_by_as_much_of_the_tuple_as_the_service_says<F: Net>() {
    let by_client = ServiceFlags::BY_CLIENT;
    let by_address = by_client | ServiceFlags::BY_ADDRESS;
    let one = tuple::<F>((CLIENT, 4000), (NODE, NODE_PORT));
    assert_eq!(choice(ServiceFlags::HOLD, &one, 7), hash(&one, 7));
    for (other, seed, as_client, as_address) in [
        (one, 8, true, true),
        (tuple::<F>((CLIENT, 4000), (CLUSTER_IP, 80)), 7, true, true),
        (
            tuple::<F>((CLIENT, 4001), (NODE, NODE_PORT)),
            7,
            false,
            true,
        ),
        (
            tuple::<F>((POD_A, 4000), (NODE, NODE_PORT)),
            7,
            false,
            false,
        ),
    ] {
        for (flags, same) in [
            (ServiceFlags::empty(), false),
            (by_client, as_client),
            (by_address, as_address),
        ] {
            let is_same = choice(flags, &one, 7) == choice(flags, &other, seed);
            assert_eq!(is_same, same, "{flags:?} {other:?}");
        }
    }
}

/// What the slots of a service with unequal weights hold, over 100,000 connections.
fn slots_get_their_share_of_connections<F: Net>() {
    const LEN: u32 = 10;
    for flags in [ServiceFlags::empty(), ServiceFlags::BY_CLIENT] {
        let mut counts = [0_u32; LEN as usize];
        for client in 0..10 {
            for port in 20_000..30_000 {
                let one = tuple::<F>((CLIENT + client, port), (NODE, NODE_PORT));
                counts[reduce(choice(flags, &one, 7), LEN) as usize] += 1;
            }
        }
        // Weights 5, 3 and 2.
        for (slots, share) in [(0..5, 0.5), (5..8, 0.3), (8..10, 0.2)] {
            let count: u32 = counts[slots].iter().sum();
            let error = f64::from(count) / 100_000.0 / share - 1.0;
            assert!(error.abs() < 0.02, "{flags:?}: {share} is {count}");
        }
    }
}

/// A node with another seed sends a client to the same backend.
fn every_node_gives_the_same_answer<F: Net>(proto: u8) {
    let backends = [REMOTE, REMOTE_TUNNEL, POD_A, POD_B];
    let nodes = [1, 99].map(|seed| {
        let mut world = World::with_backends(&backends);
        world.service_mut().flags |= ServiceFlags::BY_CLIENT;
        world.config_mut().seed = seed;
        world
    });
    for port in 2000..2100 {
        let open = Frame::<F>::new(
            proto,
            (F::addr(POD_A), port),
            (F::addr(CLUSTER_IP), SERVICE_PORT),
        );
        let [one, other] = nodes
            .each_ref()
            .map(|node| node.sends(Hook::TC_WORKLOAD_IN, VETH_A, &open).dst);
        assert_eq!(one, other, "port {port}");
    }
}

fn clients_spread_over_all_backends<F: Net>(proto: u8) {
    let backends = [REMOTE, REMOTE_TUNNEL, POD_A, POD_B];
    let world = World::with_backends(&backends);
    let mut counts: HashMap<F::Addr, u32> = HashMap::new();
    for port in 2000..2400 {
        let open = Frame::<F>::new(
            proto,
            (F::addr(POD_A), port),
            (F::addr(CLUSTER_IP), SERVICE_PORT),
        );
        let behind = world.sends(Hook::TC_WORKLOAD_IN, VETH_A, &open);
        *counts.entry(behind.dst).or_default() += 1;
    }
    // 100 each; a binomial's standard deviation is 9.
    for backend in backends {
        let count = counts.get(&F::addr(backend)).copied().unwrap_or(0);
        assert!((60..140).contains(&count), "{backend} has {count} of 400");
    }
}

/// Of a tuple of zeroes, so that the byte order does not matter. Computed by another program.
#[test]
fn a_hash_ends_with_the_finaliser_of_murmur_hash_3() {
    for (seed, expected) in [
        (0, 0),
        (1, 0xd40b_5037),
        (2, 0x1881_8443),
        (0x8000_0000, 0xba27_1f90),
        (0xdead_beef, 0xc81b_0474),
    ] {
        assert_eq!(
            hash(&Tuple::<Ip4>::default(), seed),
            expected,
            "seed {seed:#x}"
        );
    }
}

#[test]
fn a_hash_is_reduced_to_all_places_alike() {
    assert_eq!(reduce(0, 3), 0);
    assert_eq!(reduce(0x5555_5555, 3), 0);
    assert_eq!(reduce(0x5555_5556, 3), 1);
    assert_eq!(reduce(u32::MAX, 3), 2);
    assert_eq!(reduce(u32::MAX, 1), 0);
    assert_eq!(reduce(u32::MAX, u32::MAX), u32::MAX - 1);
}

/// A service that offers another backend in each scope.
const INTERNAL: u16 = POD_B;
const EXTERNAL: u16 = REMOTE;
const SHORT_CIRCUIT: u16 = REMOTE_TUNNEL;

fn scoped() -> World {
    let mut world = World::with_backends(&[INTERNAL, EXTERNAL, SHORT_CIRCUIT]);
    let one = |base| Extent { base, len: 1 };
    let base = world.services[&SERVICE].internal.base;
    *world.service_mut() = Service {
        internal: one(base),
        external: one(base.plus(1)),
        short_circuit: one(base.plus(2)),
        ..Service::default()
    };
    world
}

/// Every frontend, and where its clients are: the hook, the device, the source, and the scope's backend.
type Client = (Hook, IfIndex, u16);
const OUTSIDE: Client = (Hook::TC_UPLINK_IN, UPLINK, CLIENT);
const POD: Client = (Hook::TC_WORKLOAD_IN, VETH_A, POD_A);
const PROCESS: Client = (Hook::TC_UPLINK_OUT, UPLINK, NODE);

const SCOPES: [(u16, u16, Client, u16); 10] = [
    (CLUSTER_IP, SERVICE_PORT, OUTSIDE, INTERNAL),
    (CLUSTER_IP, SERVICE_PORT, POD, INTERNAL),
    (CLUSTER_IP, SERVICE_PORT, PROCESS, INTERNAL),
    (EXTERNAL_IP, SERVICE_PORT, OUTSIDE, EXTERNAL),
    (EXTERNAL_IP, SERVICE_PORT, POD, SHORT_CIRCUIT),
    (EXTERNAL_IP, SERVICE_PORT, PROCESS, SHORT_CIRCUIT),
    (LB_IP, SERVICE_PORT, OUTSIDE, EXTERNAL),
    (LB_IP, SERVICE_PORT, POD, SHORT_CIRCUIT),
    (NODE, NODE_PORT, OUTSIDE, EXTERNAL),
    (NODE, NODE_PORT, POD, SHORT_CIRCUIT),
];

fn a_client_chooses_from_the_scope_of_its_frontend<F: Net>(proto: u8) {
    for (addr, port, (hook, device, source), backend) in SCOPES {
        let world = scoped();
        let open = Frame::<F>::new(proto, (F::addr(source), 4000), (F::addr(addr), port));
        let behind = world.sends(hook, device, &open);
        assert_eq!(behind.dst, F::addr(backend), "{addr} at {}", hook.name);
    }
}

fn an_empty_scope_drops_or_refuses_as_its_policy_says<F: Net>(proto: u8) {
    for (addr, port, (hook, device, source), backend) in SCOPES {
        for (flag, of) in [
            (ServiceFlags::empty(), None),
            (ServiceFlags::INTERNAL_DROP, Some(INTERNAL)),
            (ServiceFlags::EXTERNAL_DROP, Some(EXTERNAL)),
        ] {
            let mut world = scoped();
            let service = world.service_mut();
            service.internal.len = 0;
            service.external.len = 0;
            service.short_circuit.len = 0;
            service.flags = flag;
            let open = Frame::<F>::new(proto, (F::addr(source), 4000), (F::addr(addr), port));
            let verdict = world.run(hook, device, &mut open.build());
            let reason = if of == Some(backend) {
                assert_eq!(
                    verdict,
                    Verdict::drop(DropReason::NoLocalEndpoint),
                    "{addr} at {}",
                    hook.name
                );
                DropReason::NoLocalEndpoint
            } else {
                DropReason::Refused
            };
            assert_eq!(
                world.reason_count(hook, reason.reason()),
                1,
                "{addr} at {}",
                hook.name
            );
        }
    }
}

const STAY: u32 = 1000;

/// A service with affinity and many backends, at which a client has a backend already. Its next port would be sent to another one.
fn remembered<F: Net>(proto: u8) -> (World, F::Addr) {
    let mut world = World::with_backends(&[REMOTE, REMOTE_TUNNEL]);
    world.service_mut().affinity = STAY;
    let first = choose::<F>(&world, proto, 4000);
    (world, first)
}

fn choose<F: Net>(world: &World, proto: u8, port: u16) -> F::Addr {
    let open = Frame::<F>::new(
        proto,
        (F::addr(POD_A), port),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    world.sends(Hook::TC_WORKLOAD_IN, VETH_A, &open).dst
}

/// Does the client get the same backend from each of 32 ports that it has not used yet?
fn stays<F: Net>(world: &World, proto: u8, first: F::Addr, base: u16) -> bool {
    (base..base + 32).all(|port| choose::<F>(world, proto, port) == first)
}

/// The remembered choice of a client that comes from one port only.
fn note<F: Net>(world: &World) -> Option<proxy_common::abi::Affinity> {
    let key = AffinityKey {
        client: F::addr(POD_A),
        service: SERVICE,
    };
    F::maps(world).affinity.borrow().get(&key).copied()
}

fn a_client_stays_with_its_backend_until_the_time_is_over<F: Net>(proto: u8) {
    let (world, first) = remembered::<F>(proto);
    assert!(stays::<F>(&world, proto, first, 4100));
    // Every use counts, up to the last moment.
    for base in [4200, 4300, 4400] {
        world.pass_time(STAY);
        assert!(stays::<F>(&world, proto, first, base));
        assert_eq!(note::<F>(&world).unwrap().last_used, world.clock.get());
    }
    let mut moved = false;
    for port in 5000..5032 {
        world.pass_time(STAY + 1);
        moved |= choose::<F>(&world, proto, port) != first;
    }
    assert!(
        moved,
        "32 ports, each after the time, all chose the first one's backend"
    );
}

fn a_client_leaves_a_backend_that_changed<F: Net>(proto: u8) {
    for change in ["another scope", "another generation", "gone"] {
        let (mut world, first) = remembered::<F>(proto);
        let id = note::<F>(&world).unwrap().backend;
        let backend = world.backend_mut::<F>(id.0 as u16);
        assert_eq!(backend.addr, first);
        match change {
            "another scope" => backend.flags &= !BackendFlags::IN_INTERNAL,
            "another generation" => backend.generation = backend.generation.next(),
            _ => drop(F::maps_mut(&mut world).backends.remove(&id)),
        }
        // The slots still lead to both, so that only what is remembered decides. A backend that is gone is refused by its slot.
        let mut others = 0;
        for port in 4001..4033 {
            if change == "gone" {
                let open = Frame::<F>::new(
                    proto,
                    (F::addr(POD_A), port),
                    (F::addr(CLUSTER_IP), SERVICE_PORT),
                );
                let mut packet = open.build();
                world.run(Hook::TC_WORKLOAD_IN, VETH_A, &mut packet);
                others += usize::from(note::<F>(&world).unwrap().backend != id);
                continue;
            }
            // What was chosen instead is forgotten, so that the old choice is asked for each time.
            F::maps(&world)
                .affinity
                .borrow_mut()
                .values_mut()
                .for_each(|note| {
                    note.backend = id;
                    note.generation = Generation::FIRST;
                });
            others += usize::from(choose::<F>(&world, proto, port) != first);
        }
        assert!(others > 0, "{change}");
    }
}

fn without_affinity_nothing_is_remembered<F: Net>(proto: u8) {
    let world = World::with_backends(&[REMOTE, REMOTE_TUNNEL]);
    choose::<F>(&world, proto, 4000);
    assert!(note::<F>(&world).is_none());
}

fn a_backend_that_does_not_serve_is_refused<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    world.backend_mut::<F>(REMOTE).flags &= !BackendFlags::SERVING;
    let open = Frame::<F>::new(
        proto,
        (F::addr(POD_A), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    world.run(Hook::TC_WORKLOAD_IN, VETH_A, &mut open.build());
    assert_eq!(
        world.reason_count(Hook::TC_WORKLOAD_IN, DropReason::Refused.reason()),
        1
    );
    assert_eq!(world.service_count(SERVICE).refused, 1);
}

fn source_ranges_hold_for_load_balancer_addresses_alone<F: Net>(proto: u8) {
    for (addr, port, range, served) in [
        (LB_IP, SERVICE_PORT, REMOTE, false),
        (LB_IP, SERVICE_PORT, CLIENT, true),
        (EXTERNAL_IP, SERVICE_PORT, REMOTE, true),
        (NODE, NODE_PORT, REMOTE, true),
    ] {
        let mut world = World::with_backend(REMOTE);
        world.service_mut().flags |= ServiceFlags::SOURCE_RANGES;
        let bits = 32 * F::Addr::WORDS as u32;
        F::maps_mut(&mut world)
            .ranges
            .push((SERVICE, F::addr(range), bits));
        let open = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(addr), port));
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut open.build());
        let expected = if served {
            Verdict::TRANSMIT
        } else {
            Verdict::drop(DropReason::SourceRange)
        };
        assert_eq!(verdict, expected, "{addr}, range {range}");
        assert_eq!(world.service_count(SERVICE).dropped, u64::from(!served));
    }
}

cases! {
    every_node_gives_the_same_answer
    clients_spread_over_all_backends
    a_client_chooses_from_the_scope_of_its_frontend
    an_empty_scope_drops_or_refuses_as_its_policy_says
    a_client_stays_with_its_backend_until_the_time_is_over
    a_client_leaves_a_backend_that_changed
    without_affinity_nothing_is_remembered
    a_backend_that_does_not_serve_is_refused
    source_ranges_hold_for_load_balancer_addresses_alone
}
families! {
    every_bit_of_a_tuple_changes_half_of_its_hash
    a_choice_is_by_as_much_of_the_tuple_as_the_service_says
    slots_get_their_share_of_connections
}
