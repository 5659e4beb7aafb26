//! What the stack would ask of a packet, asked at the edge: whose frame it is, where its source may be, by which device it comes.

use crate::world::*;
use proxy_common::{
    abi::{ConfigFlags, IfIndex, Sources, TCP, UDP},
    addr::Addr,
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    reason::{DropReason, PassReason},
    tables::Fib,
    wire::parse::tcp,
};

const IN: Hook = Hook::TC_UPLINK_IN;
const OUT: Hook = Hook::TC_UPLINK_OUT;
const POD_IN: Hook = Hook::TC_WORKLOAD_IN;

fn to_node_port<F: Net>(proto: u8, client: F::Addr) -> Frame<F> {
    Frame::new(proto, (client, 4000), (F::addr(NODE), NODE_PORT))
}

/// Demands that the packet passes as it is, for that reason, and leaves no flow.
fn passes<F: Net>(world: &World, at: (Hook, IfIndex), mut packet: Buffer, reason: PassReason) {
    let verdict = world.run(at.0, at.1, &mut packet);
    assert_eq!(verdict, Verdict::pass(reason), "at {}", at.0.name);
    assert_eq!(F::maps(world).pending.len(), 0, "at {}", at.0.name);
}

fn drops(world: &World, at: (Hook, IfIndex), frame: &Frame<impl Net>, reason: DropReason) {
    let mut packet = frame.build();
    assert_eq!(world.run(at.0, at.1, &mut packet), Verdict::drop(reason));
}

fn a_frame_for_another_station_is_left_alone<F: Net>(proto: u8) {
    for hook in [IN, Hook::XDP_UPLINK] {
        let world = World::with_backend(REMOTE);
        let ask = to_node_port::<F>(proto, F::addr(CLIENT));
        let strange = |frame: &Frame<F>| Buffer {
            is_strange: true,
            ..frame.build()
        };
        passes::<F>(&world, (hook, UPLINK), strange(&ask), PassReason::OtherHost);
        // With its MAC it is taken, if nobody has looked before.
        let mut own = strange(&ask);
        own.bytes[..6].copy_from_slice(&world.devices[&UPLINK].mac);
        let verdict = world.run(hook, UPLINK, &mut own);
        assert_eq!(verdict, Verdict::TRANSMIT);
        // So are packets of the flow that it made, and only with that MAC.
        let behind = see::<F>(&own).tuple;
        world.sends(IN, UPLINK, &Frame::<F>::answer(proto, &behind));
        world.sends(IN, UPLINK, &ask.clone().flags(tcp::ACK));
        assert_eq!(F::maps(&world).confirmed_len(), 2);
        let next = ask.clone().flags(tcp::ACK);
        let mut other = strange(&next);
        let verdict = world.run(hook, UPLINK, &mut other);
        assert_eq!(verdict, Verdict::pass(PassReason::OtherHost));
    }
}

fn a_port_of_a_bridge_takes_frames_for_the_bridge<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    world.devices.get_mut(&VETH_A).unwrap().also = [2, 0, 0, 0, 0, 1];
    let pod = Frame::<F>::new(
        proto,
        (F::addr(POD_A), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    for frame in [pod.clone(), pod.flags(tcp::ACK)] {
        let mut packet = Buffer {
            is_strange: true,
            ..frame.build()
        };
        let verdict = world.run(POD_IN, VETH_A, &mut packet);
        assert_eq!(verdict, Verdict::TRANSLATED);
    }
}

/// Whatever the routes say of its source meanwhile.
fn a_port_of_a_bridge_takes_what_its_flow_expects_by_the_bridge<F: Net>(proto: u8) {
    for (above, takes) in [(UPLINK, true), (TUNNEL, false), (IfIndex::NONE, false)] {
        let mut world = World::with_backend(REMOTE);
        let port = world.devices.get_mut(&VETH_A).unwrap();
        port.flags = port.flags.with_sources(Sources::Strict);
        port.above = above;
        let ask = to_node_port::<F>(proto, F::addr(CLIENT));
        world.sends(IN, UPLINK, &ask);
        F::maps_mut(&mut world)
            .routes
            .insert(F::addr(CLIENT), Fib::None);
        let next = ask.flags(tcp::ACK);
        if takes {
            world.sends(POD_IN, VETH_A, &next);
        } else {
            drops(&world, (POD_IN, VETH_A), &next, DropReason::SourceCheck);
        }
    }
}

fn a_source_address_that_no_host_may_have_gets_no_answer<F: Net>(proto: u8) {
    for endpoints in [true, false] {
        let mut world = World::with_backend(REMOTE);
        if !endpoints {
            world.service_mut().external.len = 0;
            world.service_mut().short_circuit.len = 0;
        }
        // What no packet has as its source, and what is this node's own.
        for source in [F::Addr::ANY, F::loopback(), F::addr(NODE)] {
            for at in [(IN, UPLINK), (Hook::XDP_UPLINK, UPLINK), (POD_IN, VETH_A)] {
                let frame = to_node_port::<F>(proto, source);
                passes::<F>(&world, at, frame.build(), PassReason::Martian);
            }
        }
        let mut from_group = to_node_port::<F>(proto, F::addr(CLIENT)).build();
        from_group.bytes[6] |= 1;
        passes::<F>(&world, (IN, UPLINK), from_group, PassReason::Martian);
    }
}

fn only_the_node_reaches_a_loopback_address_and_nobody_the_unspecified_one<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    for to in [F::Addr::ANY, F::loopback()] {
        for at in [(IN, UPLINK), (Hook::XDP_UPLINK, UPLINK), (POD_IN, VETH_A)] {
            let frame = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (to, NODE_PORT));
            passes::<F>(&world, at, frame.build(), PassReason::NotService);
        }
    }
    let nobody = Frame::<F>::new(proto, (F::addr(NODE), 4000), (F::Addr::ANY, NODE_PORT));
    passes::<F>(
        &world,
        (Hook::TC_LOOPBACK_OUT, LO),
        nobody.build(),
        PassReason::NotService,
    );
    let own = Frame::<F>::new(proto, (F::loopback(), 4000), (F::loopback(), NODE_PORT));
    world.sends(Hook::TC_LOOPBACK_OUT, LO, &own);
}

/// Who may send by a device, by its flags: whose way back is by it, whose is by another, who has none.
const BY_MODE: [(Sources, [bool; 3]); 3] = [
    (Sources::All, [true, true, true]),
    (Sources::Loose, [true, true, false]),
    (Sources::Strict, [true, false, false]),
];

fn a_workloads_first_packet_has_a_source_that_its_device_takes<F: Net>(proto: u8) {
    const NOWHERE: u16 = 77;
    for (sources, takes) in BY_MODE {
        for (source, takes) in [POD_A, POD_B, NOWHERE].into_iter().zip(takes) {
            let mut world = World::with_backend(REMOTE);
            world.takes(VETH_A, sources);
            let ask = Frame::<F>::new(
                proto,
                (F::addr(source), 4000),
                (F::addr(CLUSTER_IP), SERVICE_PORT),
            );
            if takes {
                world.sends(POD_IN, VETH_A, &ask);
            } else {
                drops(&world, (POD_IN, VETH_A), &ask, DropReason::SourceCheck);
                assert_eq!(F::maps(&world).pending.len(), 0);
            }
        }
    }
}

fn a_full_proxys_client_has_a_source_that_the_uplink_takes<F: Net>(proto: u8) {
    for (sources, takes) in BY_MODE {
        for at in [IN, Hook::XDP_UPLINK] {
            let mut world = World::with_backend(REMOTE);
            world.takes(UPLINK, sources);
            // The way to it is by the tunnel.
            let ask = to_node_port::<F>(proto, F::addr(REMOTE_TUNNEL));
            if takes[1] {
                world.sends(at, UPLINK, &ask);
            } else {
                drops(&world, (at, UPLINK), &ask, DropReason::SourceCheck);
            }
        }
    }
}

fn a_reply_by_another_device_is_taken_as_that_device_asks<F: Net>(proto: u8) {
    for (sources, takes) in BY_MODE {
        let mut world = World::with_backend(REMOTE);
        world.takes(VETH_A, sources);
        let ask = to_node_port::<F>(proto, F::addr(CLIENT));
        let behind = world.sends(IN, UPLINK, &ask);
        let forged = Frame::<F>::answer(proto, &behind);
        if takes[1] {
            world.sends(POD_IN, VETH_A, &forged);
        } else {
            drops(&world, (POD_IN, VETH_A), &forged, DropReason::SourceCheck);
        }
        // The backend's own is taken in any case, and the routing may change under it.
        world.sends(IN, UPLINK, &forged);
        F::maps_mut(&mut world)
            .routes
            .insert(F::addr(REMOTE), hop(TUNNEL));
        world.takes(TUNNEL, sources);
        world.sends(Hook::TC_UPLINK_IN, TUNNEL, &forged);
    }
}

/// Behind the stack, which asks no source of IPv6, it would be restored for another pod.
fn a_strict_workload_sends_from_no_backends_address_but_its_own<F: Net>(proto: u8) {
    let mut world = World::with_backends(&[REMOTE, POD_A]);
    world.takes(VETH_A, Sources::Strict);
    let to_pod = |source| {
        Frame::<F>::new(
            proto,
            (F::addr(source), BACKEND_PORT),
            (F::addr(POD_B), 4000),
        )
    };
    let forged = to_pod(REMOTE);
    passes::<F>(
        &world,
        (POD_IN, VETH_A),
        forged.build(),
        PassReason::NotService,
    );
    world.config_mut().flags |= ConfigFlags::WORKLOADS_STRICT;
    drops(&world, (POD_IN, VETH_A), &forged, DropReason::SourceCheck);
    passes::<F>(
        &world,
        (POD_IN, VETH_A),
        to_pod(POD_A).build(),
        PassReason::NotService,
    );
    passes::<F>(&world, (IN, UPLINK), forged.build(), PassReason::NotService);
}

fn a_clients_packet_by_another_device_is_taken_as_that_device_asks<F: Net>(proto: u8) {
    for (sources, takes) in BY_MODE {
        let mut world = World::with_backend(REMOTE);
        world.takes(VETH_A, sources);
        let ask = to_node_port::<F>(proto, F::addr(CLIENT));
        world.sends(IN, UPLINK, &ask);
        let next = ask.flags(tcp::ACK);
        if takes[1] {
            world.sends(POD_IN, VETH_A, &next);
        } else {
            drops(&world, (POD_IN, VETH_A), &next, DropReason::SourceCheck);
        }
    }
}

fn a_reply_leaves_by_the_device_that_its_connection_came_by<F: Net>(proto: u8) {
    const SECOND: IfIndex = IfIndex(9);
    let mut world = World::with_backend(POD_A);
    let second = world.devices[&UPLINK];
    world.devices.insert(SECOND, second);
    let ask = to_node_port::<F>(proto, F::addr(CLIENT));
    let behind = world.sends(IN, UPLINK, &ask);
    // The stack routes by the pod's address, out by another NIC; the service's address has its own way.
    let reply = Frame::<F>::answer(proto, &behind);
    for frame in [reply.clone(), reply.clone().flags(tcp::ACK)] {
        let (verdict, packet) = world.plays(OUT, SECOND, &frame);
        assert_eq!(verdict, Verdict::redirect(UPLINK));
        let seen = see::<F>(&packet);
        assert_eq!((seen.tuple, seen.ttl), (ask.tuple.inverse(), frame.ttl));
    }
    // Where that way is by the other NIC, too, it goes on.
    F::maps_mut(&mut world)
        .routes
        .insert(F::addr(CLIENT), hop(SECOND));
    let config = world.config_mut();
    config.epoch = config.epoch.next();
    let (verdict, _) = world.plays(OUT, SECOND, &reply);
    assert_eq!(verdict, Verdict::TRANSLATED);
}

fn a_full_proxy_takes_the_source_that_the_kernel_would<F: Net>(proto: u8) {
    const ON_LO: u16 = 12;
    for asks in [false, true] {
        let mut world = World::with_backend(REMOTE);
        F::maps_mut(&mut world)
            .sources
            .insert(F::addr(REMOTE), F::addr(ON_LO));
        if asks {
            world.config_mut().flags |= ConfigFlags::FIB_SOURCE;
        }
        let behind = world.sends(IN, UPLINK, &to_node_port::<F>(proto, F::addr(CLIENT)));
        let source = if asks { ON_LO } else { NODE };
        assert_eq!(behind.src, F::addr(source));
    }
}

fn a_packet_that_contradicts_its_header_passes_untouched<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let ask = to_node_port::<F>(proto, F::addr(CLIENT)).build();
    let transport = 14 + F::HEADER_LEN;
    let mut broken = Vec::new();
    let mut cut = ask.clone();
    cut.bytes.pop();
    broken.push(cut);
    if !F::IS_V6 {
        let mut sum = ask.clone();
        sum.bytes[14 + 10] ^= 1;
        broken.push(sum);
    }
    if proto == UDP {
        for length in [7, 100] {
            let mut udp = ask.clone();
            udp.bytes[transport + 5] = length;
            broken.push(udp);
        }
    }
    if proto == TCP {
        for words in [4, 15] {
            let mut offset = ask.clone();
            offset.bytes[transport + 12] = words << 4;
            broken.push(offset);
        }
    }
    for packet in broken {
        for at in [IN, Hook::XDP_UPLINK] {
            passes::<F>(&world, (at, UPLINK), packet.clone(), PassReason::BadHeader);
        }
    }
}

fn a_packet_that_cannot_leave_makes_no_flow<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let ask = to_node_port::<F>(proto, F::addr(CLIENT));
    drops(
        &world,
        (IN, UPLINK),
        &ask.clone().ttl(1),
        DropReason::HopLimit,
    );
    let (verdict, _) = world.plays(IN, UPLINK, &ask.payload(1600));
    assert_eq!(verdict.action, Action::Transmit, "an answer");
    assert_eq!(F::maps(&world).pending.len(), 0);
}

fn an_answer_to_the_nodes_own_socket_is_no_request<F: Net>() {
    for unconnected in [true, false] {
        let mut world = World::with_backend(REMOTE);
        let sent = Frame::<F>::new(UDP, (F::addr(NODE), NODE_PORT), (F::addr(CLIENT), 53));
        let answer = Frame::<F>::answer(UDP, &sent.tuple);
        if unconnected {
            // Leaves by the uplink, as a process of the node or the CNI's masquerading has it.
            let mut packet = sent.build();
            let verdict = world.run(OUT, UPLINK, &mut packet);
            assert_eq!(verdict, Verdict::pass(PassReason::NotService));
        } else {
            F::maps_mut(&mut world).sockets.insert((answer.tuple, UDP));
        }
        for at in [Hook::XDP_UPLINK, IN] {
            let mut packet = answer.build();
            let verdict = world.run(at, UPLINK, &mut packet);
            assert_eq!(verdict, Verdict::pass(PassReason::NotService));
        }
        // Who was not asked is a client, and so is everybody after a while.
        let other = to_node_port::<F>(UDP, F::addr(CLIENT));
        world.sends(IN, UPLINK, &other);
        if unconnected {
            world.pass_time(world.config.unwrap().udp_idle);
            world.sends(IN, UPLINK, &answer);
        }
    }
}

/// A reply that is restored leaves from a NodePort as well.
fn a_reply_of_the_service_is_not_taken_for_the_nodes_own<F: Net>() {
    let world = World::with_backend(REMOTE);
    let ask = to_node_port::<F>(UDP, F::addr(CLIENT));
    let behind = world.sends(IN, UPLINK, &ask);
    let (_, reply) = world.plays(IN, UPLINK, &Frame::<F>::answer(UDP, &behind));
    for _ in 0..2 {
        let verdict = world.run(OUT, UPLINK, &mut reply.clone());
        assert_eq!(verdict, Verdict::pass(PassReason::NotService));
        assert_eq!(world.sends(IN, UPLINK, &ask), behind);
    }
}

fn a_segment_of_no_connection_to_an_address_of_no_device_is_reset<F: Net>() {
    for is_asked in [true, false] {
        let mut world = World::with_backend(REMOTE);
        if is_asked {
            world.config_mut().flags |= ConfigFlags::RESET_STRANGERS;
        }
        let stranger = |to: (u16, u16), flags| {
            Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(to.0), to.1)).flags(flags)
        };
        let moved = (LB_IP, SERVICE_PORT);
        let mut packet = stranger(moved, tcp::ACK).build();
        let verdict = world.run(IN, UPLINK, &mut packet);
        if !is_asked {
            assert_eq!(verdict, Verdict::pass(PassReason::MidFlow));
            continue;
        }
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(check(&packet.bytes), Ok(()));
        let segment = see::<F>(&packet).segment;
        assert_eq!(segment[4..8], stranger(moved, tcp::ACK).ack.to_be_bytes());
        assert_eq!(segment[13], tcp::RST);
        drops(
            &world,
            (IN, UPLINK),
            &stranger(moved, tcp::RST),
            DropReason::Stranger,
        );
        // The stack does the same for its own addresses.
        let own = stranger((NODE, NODE_PORT), tcp::ACK).build();
        passes::<F>(&world, (IN, UPLINK), own, PassReason::MidFlow);
    }
}

/// The kernel has translated by then what it knows.
fn a_segment_that_is_routed_back_out_is_reset_whoever_may_know_it<F: Net>() {
    let world = World::with_backend(REMOTE);
    let from = |addr: u16, flags| {
        Frame::<F>::new(TCP, (F::addr(addr), 4000), (F::addr(LB_IP), SERVICE_PORT)).flags(flags)
    };
    let mut packet = from(CLIENT, tcp::ACK).build();
    let passed = world.run(IN, UPLINK, &mut packet);
    assert_eq!(passed, Verdict::pass(PassReason::MidFlow));
    let answered = world.run(OUT, UPLINK, &mut packet);
    assert_eq!(answered, Verdict::receive(UPLINK));
    assert_eq!(check(&packet.bytes), Ok(()));
    let seen = see::<F>(&packet);
    assert_eq!(seen.segment[13], tcp::RST);
    let reset = from(CLIENT, tcp::RST);
    drops(&world, (OUT, UPLINK), &reset, DropReason::Stranger);
    // A process of the node may have a connection that is older than the service.
    let own = from(NODE, tcp::ACK).build();
    passes::<F>(&world, (OUT, UPLINK), own, PassReason::MidFlow);
}

fn a_device_without_a_route_is_no_way_back<F: Net>() {
    let mut world = World::with_backend(REMOTE);
    world.takes(UPLINK, Sources::Loose);
    F::maps_mut(&mut world)
        .routes
        .insert(F::addr(CLIENT), Fib::None);
    let ask = to_node_port::<F>(UDP, F::addr(CLIENT));
    drops(&world, (IN, UPLINK), &ask, DropReason::SourceCheck);
}

cases! {
    a_frame_for_another_station_is_left_alone
    a_port_of_a_bridge_takes_frames_for_the_bridge
    a_port_of_a_bridge_takes_what_its_flow_expects_by_the_bridge
    a_source_address_that_no_host_may_have_gets_no_answer
    only_the_node_reaches_a_loopback_address_and_nobody_the_unspecified_one
    a_workloads_first_packet_has_a_source_that_its_device_takes
    a_full_proxys_client_has_a_source_that_the_uplink_takes
    a_reply_by_another_device_is_taken_as_that_device_asks
    a_strict_workload_sends_from_no_backends_address_but_its_own
    a_clients_packet_by_another_device_is_taken_as_that_device_asks
    a_reply_leaves_by_the_device_that_its_connection_came_by
    a_full_proxy_takes_the_source_that_the_kernel_would
    a_packet_that_contradicts_its_header_passes_untouched
    a_packet_that_cannot_leave_makes_no_flow
}
families! {
    an_answer_to_the_nodes_own_socket_is_no_request
    a_reply_of_the_service_is_not_taken_for_the_nodes_own
    a_segment_of_no_connection_to_an_address_of_no_device_is_reset
    a_segment_that_is_routed_back_out_is_reset_whoever_may_know_it
    a_device_without_a_route_is_no_way_back
}
