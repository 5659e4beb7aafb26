//! What the node answers itself, and ICMP errors of others, under whole and partial checksums.

use crate::{fast::with_options, world::*};
use proxy_common::{
    abi::{Extent, ServiceFlags, Slot, TCP, UDP},
    edge::{
        Link,
        hook::Hook,
        verdict::{Action, Verdict},
    },
    reason::DropReason,
    wire::parse::tcp,
};

fn to_node_port<F: Net>(proto: u8) -> Frame<F> {
    Frame::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT))
}

/// Demands that a frame goes back to where another came from, and is as long as its IP header says.
fn returns<F: Net>(frame: &[u8], came: &Buffer) {
    if came.link == Link::Ethernet {
        assert_eq!(frame[..6], came.bytes[6..12]);
        assert_eq!(frame[6..12], came.bytes[..6]);
    }
    let (field, counted) = if F::IS_V6 { (18, 54) } else { (16, 14) };
    let len = u16::from_be_bytes([frame[field], frame[field + 1]]);
    assert_eq!(usize::from(len), frame.len() - counted);
}

/// Type and code of an ICMP error, and the tuple of the packet that it quotes.
fn icmp<F: Net>(frame: &[u8]) -> ((u8, u8), Seen<F>) {
    let at = 14 + F::HEADER_LEN;
    ((frame[at], frame[at + 1]), see_at::<F>(frame, at + 8))
}

fn a_service_without_endpoints_is_refused<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    world.service_mut().external = Extent::default();
    let frame = to_node_port::<F>(proto);
    for mut packet in [frame.build(), frame.build_partial(), frame.build().bare()] {
        let came = packet.clone();
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(packet.link, came.link);
        let wire = packet.on_the_wire();
        assert_eq!(check(&wire), Ok(()));
        returns::<F>(&wire, &came);
        let back = see_at::<F>(&wire, 14);
        assert_eq!(back.tuple.src, frame.tuple.dst);
        assert_eq!(back.tuple.dst, frame.tuple.src);
        if proto == TCP {
            assert_eq!(back.tuple, frame.tuple.inverse());
            assert_eq!(back.segment[12..14], [5 << 4, tcp::RST | tcp::ACK]);
            assert_eq!(back.segment[8..12], (frame.seq + 1).to_be_bytes());
            assert_eq!(back.segment[4..8], [0; 4]);
        } else {
            let (kind, quoted) = icmp::<F>(&wire);
            assert_eq!(kind, if F::IS_V6 { (1, 4) } else { (3, 3) });
            assert_eq!(quoted.tuple, frame.tuple);
        }
    }
    assert_eq!(world.service_count(SERVICE).refused, 3);
}

/// A service without an endpoint whose first packets wait for one, 100 jiffies each client.
fn holding() -> World {
    let mut world = World::with_backend(REMOTE);
    let service = world.service_mut();
    service.flags |= ServiceFlags::HOLD;
    service.internal = Extent::held(100);
    service.external = Extent::held(100);
    world
}

fn a_first_packet_waits_for_an_endpoint_its_time_and_is_refused_then<F: Net>(proto: u8) {
    let world = holding();
    let frame = to_node_port::<F>(proto);
    let held = Verdict::drop(DropReason::Held);
    // Since the first one: after its time it is refused for as long, and waits anew.
    let mut waits = 0;
    for (pause, is_held) in [
        (0, true),
        (60, true),
        (40, true),
        (1, false),
        (99, false),
        (1, true),
        (100, true),
        (100, false),
        (1000, true),
    ] {
        world.pass_time(pause);
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut frame.build());
        let expected = if is_held { held } else { Verdict::TRANSMIT };
        assert_eq!(verdict, expected, "after {pause} more");
        waits += u64::from(is_held);
        assert_eq!(world.held(SERVICE), waits);
    }
    assert_eq!(world.service_count(SERVICE).refused, 3);
    assert_eq!(world.service_count(SERVICE).dropped, 0);
    let other = Frame::<F>::new(
        proto,
        (F::addr(CLIENT + 1), 4000),
        (F::addr(NODE), NODE_PORT),
    );
    let verdict = world.run(Hook::XDP_UPLINK, UPLINK, &mut other.build());
    assert_eq!(verdict, held, "each client waits for itself, at XDP, too");
}

fn who_waited_is_served_and_waits_anew_the_next_time<F: Net>(proto: u8) {
    let mut world = holding();
    let pod = Frame::<F>::new(
        proto,
        (F::addr(POD_A), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    let again = Frame::<F>::new(
        proto,
        (F::addr(POD_A), 4001),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    let run = |world: &World, frame: &Frame<F>| {
        world.run(Hook::TC_WORKLOAD_IN, VETH_A, &mut frame.build())
    };
    assert_eq!(run(&world, &pod), Verdict::drop(DropReason::Held));
    let empty = world.service_mut().internal;
    world.service_mut().internal = Extent {
        base: Slot(0),
        len: 1,
    };
    world.pass_time(90);
    let behind = world.sends(Hook::TC_WORKLOAD_IN, VETH_A, &pod);
    assert_eq!(behind.dst, F::addr(REMOTE));
    world.service_mut().internal = empty;
    world.pass_time(90);
    assert_eq!(run(&world, &again), Verdict::drop(DropReason::Held));
    world.pass_time(90);
    assert_eq!(run(&world, &again), Verdict::drop(DropReason::Held));
}

fn a_policy_without_local_endpoints_drops_and_holds_nothing<F: Net>(proto: u8) {
    let mut world = holding();
    world.service_mut().flags |= ServiceFlags::EXTERNAL_DROP;
    let verdict = world.run(
        Hook::TC_UPLINK_IN,
        UPLINK,
        &mut to_node_port::<F>(proto).build(),
    );
    assert_eq!(verdict, Verdict::drop(DropReason::NoLocalEndpoint));
    assert_eq!(world.held(SERVICE), 0);
}

/// An answer is written where headers have their usual places. There is none to others, which end all the same.
fn a_packet_with_options_is_refused_without_an_answer<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    world.service_mut().external = Extent::default();
    let mut packet = with_options::<F>(&to_node_port::<F>(proto));
    let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
    assert_eq!(verdict, Verdict::drop(DropReason::Refused));
}

fn a_local_policy_without_local_endpoints_drops<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    world.service_mut().external = Extent::default();
    world.service_mut().flags = ServiceFlags::EXTERNAL_DROP;
    let mut packet = to_node_port::<F>(proto).build();
    let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
    assert_eq!(verdict, Verdict::drop(DropReason::NoLocalEndpoint));
    let pod = Frame::<F>::new(
        proto,
        (F::addr(POD_A), 4000),
        (F::addr(EXTERNAL_IP), SERVICE_PORT),
    );
    let behind = world.sends(Hook::TC_WORKLOAD_IN, VETH_A, &pod);
    assert_eq!(behind.dst, F::addr(REMOTE), "pods of the node may");
}

fn too_big_a_packet_is_answered_with_the_mtu<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let frame = to_node_port::<F>(proto).payload(1600);
    for mut packet in [frame.build(), frame.build_partial(), frame.build().bare()] {
        let came = packet.clone();
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(packet.link, came.link);
        let wire = packet.on_the_wire();
        assert_eq!(check(&wire), Ok(()));
        returns::<F>(&wire, &came);
        let (kind, quoted) = icmp::<F>(&wire);
        assert_eq!(kind, if F::IS_V6 { (2, 0) } else { (3, 4) });
        assert_eq!(quoted.tuple, frame.tuple);
        let at = 14 + F::HEADER_LEN + 6;
        assert_eq!(wire[at..at + 2], 1500u16.to_be_bytes());
    }
    let mut segments = frame.build_partial();
    segments.gso = 1400;
    let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut segments);
    assert_eq!(verdict, Verdict::TRANSMIT);
    assert_eq!(see::<F>(&segments).tuple.dst, F::addr(REMOTE));
}

fn a_hop_limit_ends_where_the_node_forwards<F: Net>(proto: u8) {
    for (backend, action) in [(REMOTE, Action::Drop), (POD_A, Action::Translated)] {
        let world = World::with_backend(backend);
        let mut packet = to_node_port::<F>(proto).ttl(1).build();
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
        assert_eq!(verdict.action, action);
    }
}

fn a_rewrite_keeps_a_partial_checksum_partial<F: Net>(proto: u8) {
    for backend in [REMOTE, POD_A] {
        let world = World::with_backend(backend);
        let mut packet = to_node_port::<F>(proto).build_partial();
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
        assert_ne!(verdict.action, Action::Pass);
        assert_eq!(see::<F>(&packet).tuple.dst, F::addr(backend));
        assert_eq!(check(&packet.on_the_wire()), Ok(()));
    }
}

fn a_datagram_without_a_checksum_stays_without<F: Net>() {
    let world = World::with_backend(REMOTE);
    let mut packet = to_node_port::<F>(UDP).build();
    let field = 14 + F::HEADER_LEN + 6;
    packet.bytes[field..field + 2].fill(0);
    world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
    let seen = see::<F>(&packet);
    assert_eq!(seen.tuple.dst, F::addr(REMOTE));
    assert_eq!(seen.segment[6..8], [0, 0]);
}

fn icmp_errors_name_what_their_receiver_sent<F: Net>(proto: u8) {
    let router = F::addr(200);
    let (kind, code) = if F::IS_V6 { (2, 0) } else { (3, 4) };
    let world = World::with_backend(REMOTE);
    let open = to_node_port::<F>(proto);
    let (_, forth) = world.plays(Hook::TC_UPLINK_IN, UPLINK, &open);
    let behind = see::<F>(&forth).tuple;
    let (_, back) = world.plays(
        Hook::TC_UPLINK_IN,
        UPLINK,
        &Frame::<F>::answer(proto, &behind),
    );
    // About the request, for the client; about the reply, for the backend.
    for (about, sent, to) in [
        (&forth, open.tuple, CLIENT),
        (&back, behind.inverse(), REMOTE),
    ] {
        let mut error = icmp_error::<F>(&router, kind, code, &about.bytes, 8);
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut error);
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(check(&error.bytes), Ok(()));
        assert_eq!(see::<F>(&error).tuple.dst, F::addr(to));
        assert_eq!(icmp::<F>(&error.bytes).1.tuple, sent);
    }
}

cases! {
    a_service_without_endpoints_is_refused
    a_packet_with_options_is_refused_without_an_answer
    a_first_packet_waits_for_an_endpoint_its_time_and_is_refused_then
    who_waited_is_served_and_waits_anew_the_next_time
    a_policy_without_local_endpoints_drops_and_holds_nothing
    a_local_policy_without_local_endpoints_drops
    too_big_a_packet_is_answered_with_the_mtu
    a_hop_limit_ends_where_the_node_forwards
    a_rewrite_keeps_a_partial_checksum_partial
    icmp_errors_name_what_their_receiver_sent
}
families! { a_datagram_without_a_checksum_stays_without }
