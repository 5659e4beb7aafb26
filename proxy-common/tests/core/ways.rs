//! The edge rule: where each kind of client is translated, and how its replies come back.

use crate::world::*;
use proxy_common::{
    abi::{BackendFlags, IfIndex, TCP, Tuple},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    reason::Reason,
    tables::Fib,
    wire::{packet::Packet, parse::tcp},
};

/// One way through the node: the client's packet at its hook, what leaves, and the same for the reply.
struct Way {
    backend: u16,
    client: u16,
    frontend: (u16, u16),
    at: (Hook, IfIndex),
    /// The source behind the rewrite.
    source: u16,
    verdict: Verdict,
    reply_at: (Hook, IfIndex),
    reply_verdict: Verdict,
}

/// Plays three packets of a connection, so that its flow gets confirmed, then one each way by the fast path, and one each way after
/// pauses, from the side that spoke last as well as from the other.
fn play<F: Net>(proto: u8, way: Way) {
    let world = World::with_backend(way.backend);
    play_at::<F>(&world, proto, way);
}

/// The same at this node.
fn play_at<F: Net>(world: &World, proto: u8, way: Way) {
    let open = Frame::<F>::new(
        proto,
        (F::addr(way.client), 4000),
        (F::addr(way.frontend.0), way.frontend.1),
    );
    let behind = tuple::<F>((way.source, 4000), (way.backend, BACKEND_PORT));
    let forth = |frame: &Frame<F>| {
        let (verdict, packet) = world.plays(way.at.0, way.at.1, frame);
        assert_eq!(verdict, way.verdict);
        let seen = see::<F>(&packet);
        assert_eq!(seen.tuple, behind);
        let forwarded = verdict.action != Action::Translated && verdict.action != Action::Receive;
        // Out by the device that the stack had chosen, the packet leaves as a forwarded one too.
        if forwarded {
            assert_eq!(seen.ttl, 63);
        }
    };
    let back = |flags: u8| {
        let reply = Frame::<F>::answer(proto, &behind).flags(flags);
        let (verdict, packet) = world.plays(way.reply_at.0, way.reply_at.1, &reply);
        assert_eq!(verdict, way.reply_verdict);
        assert_eq!(see::<F>(&packet).tuple, open.tuple.inverse());
    };
    forth(&open);
    let translated = |hook| world.reason_count(hook, Reason::Translated);
    assert_eq!(translated(way.at.0), 1, "at {}", way.at.0.name);
    back(tcp::SYN | tcp::ACK);
    assert_eq!(
        translated(way.reply_at.0),
        1 + u64::from(way.at.0 == way.reply_at.0)
    );
    forth(&open.clone().flags(tcp::ACK));
    let maps = F::maps(world);
    assert_eq!((maps.pending.len(), maps.confirmed_len()), (0, 2));
    forth(&open.clone().flags(tcp::ACK));
    back(tcp::ACK);
    for _ in 0..2 {
        world.pass_time(world.config.unwrap().refresh);
        back(tcp::ACK);
        world.pass_time(world.config.unwrap().refresh);
        forth(&open.clone().flags(tcp::ACK));
    }
    let counted = world.backend_count(backend_id(way.backend));
    assert_eq!((counted.packets, counted.reply_packets), (5, 4));
    assert_eq!(counted.connections, 1);
    assert_eq!(world.service_count(SERVICE).connections, 1);
}

fn an_outside_client_of_a_local_backend_keeps_its_address<F: Net>(proto: u8) {
    play::<F>(
        proto,
        Way {
            backend: POD_A,
            client: CLIENT,
            frontend: (NODE, NODE_PORT),
            at: (Hook::XDP_UPLINK, UPLINK),
            source: CLIENT,
            verdict: Verdict::TRANSLATED,
            reply_at: (Hook::TC_UPLINK_OUT, UPLINK),
            reply_verdict: Verdict::TRANSLATED,
        },
    );
}

/// Its slice does not name the node, and its address is by a device that does not lead out.
fn an_outside_client_of_a_backend_that_only_routes_tell_as_local_keeps_its_address<F: Net>(
    proto: u8,
) {
    let mut world = World::with_backend(POD_A);
    world.backend_mut::<F>(POD_A).flags -= BackendFlags::LOCAL;
    let ask = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    let (verdict, packet) = world.plays(Hook::TC_UPLINK_IN, UPLINK, &ask);
    assert_eq!(verdict, Verdict::TRANSLATED);
    assert_eq!(
        see::<F>(&packet).tuple,
        tuple::<F>((CLIENT, 4000), (POD_A, BACKEND_PORT))
    );
}

fn an_outside_client_of_a_remote_backend_is_turned_round_at_the_uplink<F: Net>(proto: u8) {
    for hook in [Hook::XDP_UPLINK, Hook::TC_UPLINK_IN] {
        play::<F>(
            proto,
            Way {
                backend: REMOTE,
                client: CLIENT,
                frontend: (EXTERNAL_IP, SERVICE_PORT),
                at: (hook, UPLINK),
                source: NODE,
                verdict: Verdict::TRANSMIT,
                reply_at: (hook, UPLINK),
                reply_verdict: Verdict::TRANSMIT,
            },
        );
    }
}

fn a_backend_behind_a_tunnel_sees_the_tunnels_own_address<F: Net>(proto: u8) {
    play::<F>(
        proto,
        Way {
            backend: REMOTE_TUNNEL,
            client: CLIENT,
            frontend: (LB_IP, SERVICE_PORT),
            at: (Hook::TC_UPLINK_IN, UPLINK),
            source: TUNNEL_ADDR,
            verdict: Verdict::redirect(TUNNEL),
            reply_at: (Hook::TC_UPLINK_IN, TUNNEL),
            reply_verdict: Verdict::redirect(UPLINK),
        },
    );
}

fn a_backend_behind_a_tunnel_without_a_link_header_is_sent_to_by_the_kernel<F: Net>(proto: u8) {
    for at in [Hook::TC_UPLINK_IN, Hook::TC_UPLINK_OUT] {
        let is_outside = at == Hook::TC_UPLINK_IN;
        let (client, frontend) = if is_outside {
            (CLIENT, NODE)
        } else {
            (NODE, CLUSTER_IP)
        };
        play_at::<F>(
            &World::with_backend(REMOTE_TUNNEL).bare(TUNNEL),
            proto,
            Way {
                backend: REMOTE_TUNNEL,
                client,
                frontend: (frontend, if is_outside { NODE_PORT } else { SERVICE_PORT }),
                at: (at, UPLINK),
                source: TUNNEL_ADDR,
                verdict: Verdict::neighbour(TUNNEL),
                reply_at: (Hook::TC_UPLINK_IN, TUNNEL),
                reply_verdict: if is_outside {
                    Verdict::redirect(UPLINK)
                } else {
                    Verdict::receive(UPLINK)
                },
            },
        );
    }
}

fn a_client_behind_a_device_without_a_link_header_is_served<F: Net>(proto: u8) {
    for (backend, source, verdict, reply_at, reply_verdict) in [
        (
            POD_A,
            CLIENT,
            Verdict::TRANSLATED,
            (Hook::TC_UPLINK_OUT, TUNNEL),
            Verdict::TRANSLATED,
        ),
        (
            REMOTE,
            NODE,
            Verdict::redirect(UPLINK),
            (Hook::TC_UPLINK_IN, UPLINK),
            Verdict::neighbour(TUNNEL),
        ),
        (
            REMOTE_TUNNEL,
            TUNNEL_ADDR,
            Verdict::neighbour(TUNNEL),
            (Hook::TC_UPLINK_IN, TUNNEL),
            Verdict::neighbour(TUNNEL),
        ),
    ] {
        let mut world = World::with_backend(backend).bare(TUNNEL);
        F::maps_mut(&mut world)
            .routes
            .insert(F::addr(CLIENT), hop(TUNNEL));
        play_at::<F>(
            &world,
            proto,
            Way {
                backend,
                client: CLIENT,
                frontend: (NODE, NODE_PORT),
                at: (Hook::TC_UPLINK_IN, TUNNEL),
                source,
                verdict,
                reply_at,
                reply_verdict,
            },
        );
    }
}

/// The frame that a packet without a link header gets where it leaves by one that has it.
fn a_link_header_is_the_next_hops<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE).bare(TUNNEL);
    F::maps_mut(&mut world)
        .routes
        .insert(F::addr(CLIENT), hop(TUNNEL));
    let open = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    let (verdict, packet) = world.plays(Hook::TC_UPLINK_IN, TUNNEL, &open);
    assert_eq!(verdict, Verdict::redirect(UPLINK));
    let Fib::Hop { macs, .. } = hop(UPLINK) else {
        panic!("a resolved route");
    };
    assert_eq!(packet.macs(), Some(macs));
    assert_eq!(packet.ethertype(), Some(F::ETHERTYPE));
}

fn a_pod_reaches_another_pod_with_its_own_address<F: Net>(proto: u8) {
    for backend in [POD_B, REMOTE, NODE] {
        play::<F>(
            proto,
            Way {
                backend,
                client: POD_A,
                frontend: (CLUSTER_IP, SERVICE_PORT),
                at: (Hook::TC_WORKLOAD_IN, VETH_A),
                source: POD_A,
                verdict: Verdict::TRANSLATED,
                reply_at: (Hook::TC_WORKLOAD_OUT, VETH_A),
                reply_verdict: Verdict::TRANSLATED,
            },
        );
    }
}

fn a_pod_that_reaches_itself_comes_from_the_node<F: Net>(proto: u8) {
    play::<F>(
        proto,
        Way {
            backend: POD_A,
            client: POD_A,
            frontend: (CLUSTER_IP, SERVICE_PORT),
            at: (Hook::TC_WORKLOAD_IN, VETH_A),
            source: NODE,
            verdict: Verdict::TRANSMIT,
            reply_at: (Hook::TC_WORKLOAD_IN, VETH_A),
            reply_verdict: Verdict::TRANSMIT,
        },
    );
}

fn a_process_on_the_node_reaches_a_remote_backend_by_the_uplink<F: Net>(proto: u8) {
    for hook in [Hook::XDP_UPLINK, Hook::TC_UPLINK_IN] {
        play::<F>(
            proto,
            Way {
                backend: REMOTE,
                client: NODE,
                frontend: (CLUSTER_IP, SERVICE_PORT),
                at: (Hook::TC_UPLINK_OUT, UPLINK),
                source: NODE,
                verdict: Verdict::TRANSLATED,
                reply_at: (hook, UPLINK),
                reply_verdict: Verdict::TRANSLATED,
            },
        );
    }
}

fn a_process_on_the_node_reaches_a_pod_of_the_node<F: Net>(proto: u8) {
    play::<F>(
        proto,
        Way {
            backend: POD_A,
            client: NODE,
            frontend: (CLUSTER_IP, SERVICE_PORT),
            at: (Hook::TC_UPLINK_OUT, UPLINK),
            source: NODE,
            verdict: Verdict::redirect(VETH_A),
            reply_at: (Hook::TC_WORKLOAD_IN, VETH_A),
            reply_verdict: Verdict::receive(UPLINK),
        },
    );
}

fn a_node_port_on_the_loopback_device_leads_to_a_pod<F: Net>(proto: u8) {
    play::<F>(
        proto,
        Way {
            backend: POD_A,
            client: NODE,
            frontend: (NODE, NODE_PORT),
            at: (Hook::TC_LOOPBACK_OUT, LO),
            source: NODE,
            verdict: Verdict::redirect(VETH_A),
            reply_at: (Hook::TC_WORKLOAD_IN, VETH_A),
            reply_verdict: Verdict::receive(LO),
        },
    );
}

fn a_process_on_the_node_reaches_another_by_the_loopback_device<F: Net>(proto: u8) {
    for (at, verdict) in [
        ((Hook::TC_LOOPBACK_OUT, LO), Verdict::TRANSLATED),
        ((Hook::TC_UPLINK_OUT, UPLINK), Verdict::receive(LO)),
    ] {
        play::<F>(
            proto,
            Way {
                backend: NODE,
                client: NODE,
                frontend: (CLUSTER_IP, SERVICE_PORT),
                at,
                source: NODE,
                verdict,
                reply_at: (Hook::TC_LOOPBACK_OUT, LO),
                reply_verdict: Verdict::TRANSLATED,
            },
        );
    }
}

fn a_loopback_source_becomes_the_nodes_address<F: Net>(proto: u8) {
    let world = World::with_backend(POD_A);
    let open = Frame::<F>::new(proto, (F::loopback(), 4000), (F::loopback(), NODE_PORT));
    let behind = world.sends(Hook::TC_LOOPBACK_OUT, LO, &open);
    assert_eq!(behind, tuple::<F>((NODE, 4000), (POD_A, BACKEND_PORT)));
    let reply = Frame::<F>::answer(proto, &behind);
    let (verdict, packet) = world.plays(Hook::TC_WORKLOAD_IN, VETH_A, &reply);
    assert_eq!(verdict, Verdict::receive(LO));
    assert_eq!(see::<F>(&packet).tuple, open.tuple.inverse());
}

fn a_reply_is_restored_at_its_clients_edge_only<F: Net>(proto: u8) {
    let world = World::with_backend(POD_B);
    let open = Frame::<F>::new(
        proto,
        (F::addr(POD_A), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    let behind: Tuple<_> = world.sends(Hook::TC_WORKLOAD_IN, VETH_A, &open);
    let mut packet = Frame::<F>::answer(proto, &behind).build();
    let verdict = world.run(Hook::TC_WORKLOAD_IN, VETH_B, &mut packet);
    assert_eq!(verdict.action, Action::Pass);
    let verdict = world.run(Hook::TC_WORKLOAD_OUT, VETH_A, &mut packet);
    assert_eq!(verdict.action, Action::Translated);
    assert_eq!(see::<F>(&packet).tuple, open.tuple.inverse());
}

fn a_next_hop_that_is_not_resolved_is_left_to_the_kernel<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    let route = proxy_common::tables::Fib::Unresolved {
        ifindex: UPLINK,
        mtu: 1500,
    };
    F::maps_mut(&mut world)
        .routes
        .insert(F::addr(REMOTE), route);
    let open = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    let verdict = world.run(Hook::XDP_UPLINK, UPLINK, &mut open.build());
    assert_eq!(verdict.action, Action::Pass);
    assert_eq!(F::maps(&world).pending.len(), 0);
    let (verdict, _) = world.plays(Hook::TC_UPLINK_IN, UPLINK, &open);
    assert_eq!(verdict, Verdict::neighbour(UPLINK));
}

fn a_stale_hint_is_looked_up_again<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    let open = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    let behind = world.sends(Hook::TC_UPLINK_IN, UPLINK, &open);
    F::maps_mut(&mut world)
        .routes
        .insert(F::addr(REMOTE), hop(TUNNEL));
    let next = open.clone().flags(if proto == TCP { tcp::ACK } else { 0 });
    let (verdict, _) = world.plays(Hook::TC_UPLINK_IN, UPLINK, &next);
    assert_eq!(verdict, Verdict::TRANSMIT, "the epoch is the old one");
    let config = world.config_mut();
    config.epoch = config.epoch.next();
    let (verdict, packet) = world.plays(Hook::TC_UPLINK_IN, UPLINK, &next);
    assert_eq!(verdict, Verdict::redirect(TUNNEL));
    assert_eq!(see::<F>(&packet).tuple, behind, "the flow is the same one");
}

cases! {
    an_outside_client_of_a_local_backend_keeps_its_address
    an_outside_client_of_a_backend_that_only_routes_tell_as_local_keeps_its_address
    an_outside_client_of_a_remote_backend_is_turned_round_at_the_uplink
    a_backend_behind_a_tunnel_sees_the_tunnels_own_address
    a_backend_behind_a_tunnel_without_a_link_header_is_sent_to_by_the_kernel
    a_client_behind_a_device_without_a_link_header_is_served
    a_link_header_is_the_next_hops
    a_pod_reaches_another_pod_with_its_own_address
    a_pod_that_reaches_itself_comes_from_the_node
    a_process_on_the_node_reaches_a_remote_backend_by_the_uplink
    a_process_on_the_node_reaches_a_pod_of_the_node
    a_node_port_on_the_loopback_device_leads_to_a_pod
    a_process_on_the_node_reaches_another_by_the_loopback_device
    a_loopback_source_becomes_the_nodes_address
    a_reply_is_restored_at_its_clients_edge_only
    a_next_hop_that_is_not_resolved_is_left_to_the_kernel
    a_stale_hint_is_looked_up_again
}
