//! Fragments of a datagram: who finds the first one's ports, who waits for it, and as what a waiting one is kept.

use crate::world::*;
use proxy_common::{
    abi::{FragmentKey, HeldKey, LocalAddr, UDP},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    paths::fragment,
    reason::PassReason,
    wire::parse::Part,
};

const IN: Hook = Hook::TC_UPLINK_IN;
const OUT: Hook = Hook::TC_UPLINK_OUT;

const EMPTY: HeldKey = HeldKey {
    src: [0; 4],
    dst: [0; 4],
    id: 0,
    kind: 0,
    number: 7,
};

/// A datagram's first 32 bytes, and the rest.
fn pieces<F: Net>(src: u16, dst: (u16, u16)) -> [Buffer; 2] {
    let frame = Frame::<F>::new(UDP, (F::addr(src), 4000), (F::addr(dst.0), dst.1)).payload(100);
    let bytes = frame.build().bytes;
    let (head, body) = bytes.split_at(14 + F::HEADER_LEN);
    let (first, rest) = body.split_at(32);
    [(first, 0, 1), (rest, 4, 0)].map(|(part, at, more)| piece::<F>(head, part, at, more))
}

/// The part of the datagram that begins `at` so many words of 8 bytes.
fn piece<F: Net>(head: &[u8], part: &[u8], at: u16, more: u16) -> Buffer {
    let mut bytes = head.to_vec();
    if F::IS_V6 {
        let len = 8 + part.len() as u16;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
        let next = std::mem::replace(&mut bytes[20], 44);
        bytes.extend([next, 0]);
        bytes.extend((at << 3 | more).to_be_bytes());
        bytes.extend([0x11, 0x22, 0x33, 0x44]);
    } else {
        let len = 20 + part.len() as u16;
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        bytes[18..20].copy_from_slice(&[0x11, 0x22]);
        bytes[20..22].copy_from_slice(&(more << 13 | at).to_be_bytes());
        bytes[24..26].fill(0);
        let check = !sum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
    }
    bytes.extend(part);
    Buffer::new(bytes)
}

fn run(world: &World, hook: Hook, piece: &Buffer) -> (Verdict, Buffer) {
    let mut packet = piece.clone();
    let verdict = world.run(hook, UPLINK, &mut packet);
    (verdict, packet)
}

/// The only key under which ports are noted.
fn noted<F: Net>(world: &World) -> FragmentKey<F::Addr> {
    let keys: Vec<_> = F::maps(world).fragments.borrow().keys().copied().collect();
    assert_eq!(keys.len(), 1);
    keys[0]
}

fn the_others_go_where_the_first_one_went<F: Net>() {
    let world = World::with_backend(REMOTE);
    let [first, rest] = pieces::<F>(CLIENT, (NODE, NODE_PORT));
    for piece in [first, rest] {
        let (verdict, packet) = run(&world, IN, &piece);
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(see::<F>(&packet).tuple.dst, F::addr(REMOTE));
    }
}

fn a_first_one_that_came_in_tells_nothing_of_one_that_leaves<F: Net>() {
    let world = World::with_backend(REMOTE);
    let [first, rest] = pieces::<F>(CLIENT, (NODE, NODE_PORT));
    run(&world, IN, &first);
    let (verdict, packet) = run(&world, OUT, &rest);
    assert_eq!(verdict, Verdict::pass(PassReason::FragmentUnknown));
    assert_eq!(packet, rest);
}

/// On their way out they are in the order in which the node made them.
fn one_that_comes_in_before_the_first_waits_if_it_may_be_a_services<F: Net>() {
    let mut world = World::with_backend(REMOTE);
    F::maps_mut(&mut world)
        .local
        .insert(F::addr(POD_B), LocalAddr::empty());
    for (hook, to, waits) in [
        (IN, NODE, true),
        (IN, CLUSTER_IP, true),
        (IN, REMOTE_TUNNEL, false),
        // An address of the node that serves no NodePorts.
        (IN, POD_B, false),
        (OUT, NODE, false),
        (OUT, CLUSTER_IP, false),
    ] {
        let [_, rest] = pieces::<F>(CLIENT, (to, NODE_PORT));
        let (verdict, packet) = run(&world, hook, &rest);
        let expected = if waits {
            Verdict::FRAGMENT
        } else {
            Verdict::pass(PassReason::FragmentUnknown)
        };
        assert_eq!(verdict, expected, "{} at {}", to, hook.name);
        assert_eq!(packet, rest);
    }
}

fn one_for_another_station_does_not_wait<F: Net>() {
    let world = World::with_backend(REMOTE);
    let [_, mut rest] = pieces::<F>(CLIENT, (NODE, NODE_PORT));
    rest.is_strange = true;
    let (verdict, _) = run(&world, IN, &rest);
    assert_eq!(verdict, Verdict::pass(PassReason::OtherHost));
}

fn a_first_one_that_others_wait_for_is_told<F: Net>() {
    for (hook, source, to, is_told) in [
        (IN, CLIENT, (NODE, NODE_PORT), true),
        (OUT, NODE, (CLUSTER_IP, SERVICE_PORT), false),
    ] {
        let world = World::with_backend(REMOTE);
        let [first, _] = pieces::<F>(source, to);
        let (verdict, _) = run(&world, hook, &first);
        assert_ne!(verdict.action, Action::Fragment, "nobody waits");
        let key = noted::<F>(&world);
        F::maps(&world).held.borrow_mut().insert(key);
        let (verdict, _) = run(&world, hook, &first);
        assert_eq!(verdict.action == Action::Fragment, is_told);
    }
}

/// So that the one is found by the other.
fn a_waiting_one_is_kept_under_what_the_first_one_shows<F: Net>() {
    let world = World::with_backend(REMOTE);
    let [first, rest] = pieces::<F>(CLIENT, (NODE, NODE_PORT));
    run(&world, IN, &first);
    let mut by_first = EMPTY;
    fragment::describe_key(&noted::<F>(&world), &mut by_first);
    for (piece, part) in [(&first, Part::First), (&rest, Part::Later)] {
        let mut key = EMPTY;
        assert_eq!(fragment::describe::<F, _>(IN.edge, piece, &mut key), part);
        assert_eq!(key, by_first);
        let mut other = EMPTY;
        fragment::describe::<F, _>(OUT.edge, piece, &mut other);
        assert_ne!(key.kind, other.kind);
    }
    let words =
        |addr: u16| std::array::from_fn(|i| proxy_common::addr::Addr::word(&F::addr(addr), i));
    assert_eq!((by_first.src, by_first.dst), (words(CLIENT), words(NODE)));
}

families! {
    the_others_go_where_the_first_one_went
    a_first_one_that_came_in_tells_nothing_of_one_that_leaves
    one_that_comes_in_before_the_first_waits_if_it_may_be_a_services
    one_for_another_station_does_not_wait
    a_first_one_that_others_wait_for_is_told
    a_waiting_one_is_kept_under_what_the_first_one_shows
}
