//! The life of a flow: confirmed, ended, and left when its backend is gone.

use crate::world::*;
use proxy_common::{
    abi::{BackendFlags, Config, IfIndex, SCTP, TCP, UDP},
    edge::{hook::Hook, verdict::Verdict},
    reason::PassReason,
    tables::Table,
    wire::parse::tcp,
};

const AT: (Hook, IfIndex) = (Hook::TC_UPLINK_IN, UPLINK);
const OUT: Hook = Hook::TC_UPLINK_OUT;

fn open<F: Net>(proto: u8, port: u16) -> Frame<F> {
    Frame::new(proto, (F::addr(CLIENT), port), (F::addr(NODE), NODE_PORT))
}

/// Plays three packets of a connection by a full proxy; gives its first one.
fn confirm<F: Net>(world: &World, proto: u8) -> Frame<F> {
    confirm_by(world, proto, AT.0)
}

/// The same where replies cross that hook.
fn confirm_by<F: Net>(world: &World, proto: u8, replies_at: Hook) -> Frame<F> {
    let open = open::<F>(proto, 4000);
    let behind = world.sends(AT.0, AT.1, &open);
    world.sends(replies_at, AT.1, &Frame::<F>::answer(proto, &behind));
    world.sends(AT.0, AT.1, &open.clone().flags(tcp::ACK));
    open
}

fn a_flood_of_first_packets_leaves_confirmed_flows_alone<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    F::maps_mut(&mut world).pending.capacity = 16;
    confirm::<F>(&world, proto);
    for port in 5000..5100 {
        world.sends(AT.0, AT.1, &open::<F>(proto, port));
    }
    assert_eq!(F::maps(&world).confirmed_len(), 2);
    assert_eq!(F::maps(&world).pending.len(), 16);
}

fn a_client_that_repeats_itself_is_not_confirmed_before_a_reply<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let first = open::<F>(proto, 4000);
    for _ in 0..3 {
        world.sends(AT.0, AT.1, &first);
        assert_eq!(F::maps(&world).confirmed_len(), 0);
    }
    // Nor by time.
    for _ in 0..3 {
        world.pass_time(world.config.unwrap().refresh);
        world.sends(AT.0, AT.1, &first);
        assert_eq!(F::maps(&world).confirmed_len(), 0);
    }
}

fn a_reply_is_restored_while_another_cpu_confirms_its_flow<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let open = open::<F>(proto, 4000);
    let behind = world.sends(AT.0, AT.1, &open);
    world.confirms.set(true);
    let reply = world.sends(AT.0, AT.1, &Frame::<F>::answer(proto, &behind));
    assert_eq!(reply, open.tuple.inverse());
    assert!(!world.confirms.get(), "nobody looked");
}

fn a_flow_is_confirmed_after_the_tables_were_held_still<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    let refresh = world.config.unwrap().refresh;
    world.config.as_mut().unwrap().refresh = Config::STILL;
    let first = confirm::<F>(&world, proto);
    world.pass_time(2 * refresh);
    let next = first.flags(tcp::ACK);
    assert_eq!(world.sends(AT.0, AT.1, &next).dst, F::addr(REMOTE));
    assert_eq!(F::maps(&world).confirmed_len(), 0);
    assert_eq!(F::maps(&world).pending.len(), 2);
    world.config.as_mut().unwrap().refresh = refresh;
    world.sends(AT.0, AT.1, &next);
    assert_eq!(F::maps(&world).confirmed_len(), 2);
}

fn only_udp_leaves_a_backend_that_is_gone<F: Net>(proto: u8) {
    for is_replaced in [false, true] {
        let mut world = World::with_backend(REMOTE);
        let first = confirm::<F>(&world, proto);
        let gone = world.backend_mut::<F>(REMOTE);
        if is_replaced {
            gone.generation = gone.generation.next();
        } else {
            gone.flags = BackendFlags::empty();
        }
        world.serve(SERVICE, CLUSTER_IP, &[REMOTE_TUNNEL]);
        let next = first.clone().flags(tcp::ACK);
        let stays = if proto == UDP { REMOTE_TUNNEL } else { REMOTE };
        assert_eq!(world.sends(AT.0, AT.1, &next).dst, F::addr(stays));
        let anew = world.sends(AT.0, AT.1, &first);
        assert_eq!(anew.dst, F::addr(REMOTE_TUNNEL), "a SYN begins anew");
    }
}

fn a_first_packet_after_the_end_chooses_again<F: Net>(proto: u8) {
    // Of SCTP both are what ends an association at once.
    for by_fin in [true, false] {
        let mut world = World::with_backend(REMOTE);
        let first = confirm::<F>(&world, proto);
        world.serve(SERVICE, CLUSTER_IP, &[REMOTE_TUNNEL]);
        let before = world.sends(AT.0, AT.1, &first);
        assert_eq!(before.dst, F::addr(REMOTE), "not over yet");
        if by_fin && proto == TCP {
            let behind = tuple::<F>((NODE, 4000), (REMOTE, BACKEND_PORT));
            let fin = Frame::<F>::answer(proto, &behind).flags(tcp::FIN | tcp::ACK);
            world.sends(AT.0, AT.1, &first.clone().flags(tcp::FIN | tcp::ACK));
            let half = world.sends(AT.0, AT.1, &first);
            assert_eq!(half.dst, F::addr(REMOTE), "one end goes on");
            world.sends(AT.0, AT.1, &fin);
        } else {
            let end = if by_fin {
                tcp::FIN | tcp::ACK
            } else {
                tcp::RST
            };
            world.sends(AT.0, AT.1, &first.clone().flags(end));
        }
        world.pass_time(world.config.unwrap().udp_idle);
        let after = world.sends(AT.0, AT.1, &first);
        assert_eq!(after.dst, F::addr(REMOTE_TUNNEL));
    }
}

/// Straight to the backend from where a connection through the service seemed to come from.
fn a_flow_that_is_over_makes_way_for_a_direct_connection<F: Net>() {
    let ends: [(&[(bool, u8)], bool); 5] = [
        (&[], false),
        (&[(false, tcp::FIN)], false),
        (&[(true, tcp::FIN)], false),
        (&[(false, tcp::FIN), (true, tcp::FIN)], true),
        (&[(true, tcp::RST)], true),
    ];
    for (ends, is_over) in ends {
        for opening in [tcp::SYN, tcp::ACK] {
            let world = World::with_backend(POD_A);
            let first = confirm_by::<F>(&world, TCP, OUT);
            let behind = tuple::<F>((CLIENT, 4000), (POD_A, BACKEND_PORT));
            for (is_reply, flag) in ends {
                if *is_reply {
                    let reply = Frame::<F>::answer(TCP, &behind).flags(flag | tcp::ACK);
                    assert_eq!(world.sends(OUT, AT.1, &reply).src, F::addr(NODE));
                } else {
                    world.sends(AT.0, AT.1, &first.clone().flags(flag | tcp::ACK));
                }
            }
            let direct =
                Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(POD_A), BACKEND_PORT));
            let mut packet = direct.flags(opening).build();
            let verdict = world.run(AT.0, AT.1, &mut packet);
            assert_eq!(verdict, Verdict::pass(PassReason::NotService));
            let gone = is_over && opening == tcp::SYN;
            let left = if gone { 0 } else { 2 };
            assert_eq!(F::maps(&world).confirmed_len(), left, "after {ends:?}");
        }
    }
}

fn either_direction_rebuilds_the_other_at_the_next_refresh<F: Net>(proto: u8) {
    for lost_is_reply in [false, true] {
        let world = World::with_backend(REMOTE);
        let first = confirm::<F>(&world, proto);
        let flows = F::maps(&world).flows(Table::confirmed(proto));
        let keys = flows.keys();
        let lost = keys
            .iter()
            .find(|k| flows.get(k).unwrap().is_reply() == lost_is_reply)
            .unwrap();
        let there = flows.get(lost).unwrap();
        let behind = tuple::<F>((NODE, 4000), (REMOTE, BACKEND_PORT));
        assert!(flows.remove(lost));
        world.pass_time(world.config.unwrap().refresh);
        let seen = if lost_is_reply {
            first.clone().flags(tcp::ACK)
        } else {
            Frame::answer(proto, &behind).flags(tcp::ACK)
        };
        world.sends(AT.0, AT.1, &seen);
        let again = flows.get(lost).expect("rebuilt");
        assert_eq!((again.to, again.state), (there.to, there.state));
        assert_eq!(
            (again.backend, again.service),
            (there.backend, there.service)
        );
        assert_eq!((again.route, again.ifindex), (there.route, there.ifindex));
    }
}

fn a_segment_of_an_unknown_connection_goes_on<F: Net>() {
    let world = World::with_backend(REMOTE);
    for proto in [TCP, SCTP] {
        let mut packet = open::<F>(proto, 4000).flags(tcp::ACK).build();
        let verdict = world.run(AT.0, AT.1, &mut packet);
        assert_eq!(verdict, Verdict::pass(PassReason::MidFlow));
    }
    assert_eq!(F::maps(&world).pending.len(), 0);
}

cases! {
    a_client_that_repeats_itself_is_not_confirmed_before_a_reply
    a_flood_of_first_packets_leaves_confirmed_flows_alone
    a_flow_is_confirmed_after_the_tables_were_held_still
    a_reply_is_restored_while_another_cpu_confirms_its_flow
    only_udp_leaves_a_backend_that_is_gone
    a_first_packet_after_the_end_chooses_again
    either_direction_rebuilds_the_other_at_the_next_refresh
}
families! {
    a_flow_that_is_over_makes_way_for_a_direct_connection
    a_segment_of_an_unknown_connection_goes_on
}
