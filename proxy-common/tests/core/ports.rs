//! A reply tuple belongs to one connection alone, and every reply finds its own client.

use crate::world::*;
use proptest::prelude::*;
use proxy_common::{
    abi::{SCTP, ServiceId, TCP, UDP},
    addr::{V4, V6},
    edge::{hook::Hook, verdict::Verdict},
    reason::{DropReason, Reason},
    tables::Table,
    wire::parse::tcp,
};
use std::collections::{BTreeSet, HashMap};

/// Opens connections from (client, port) to one of two services with a common backend, then answers each.
fn every_reply_reaches_its_client<F: Net>(
    proto: u8,
    flows: &BTreeSet<(u16, u16, bool)>,
) -> Result<(), TestCaseError> {
    let mut world = World::with_backends(&[REMOTE, POD_A]);
    world.serve(ServiceId(SERVICE.0 + 1), CLUSTER_IP + 1, &[REMOTE, POD_A]);
    let mut behind = HashMap::new();
    for (client, port, second) in flows {
        let addr = F::addr(1000 + client);
        F::maps_mut(&mut world).routes.insert(addr, hop(UPLINK));
        let node_port = NODE_PORT + *second as u16;
        let open = Frame::<F>::new(proto, (addr, 4000 + port), (F::addr(NODE), node_port));
        let tuple = world.sends(Hook::TC_UPLINK_IN, UPLINK, &open);
        let other = behind.insert(tuple, open.tuple);
        prop_assert_eq!(other, None, "two connections share {:?}", tuple);
    }
    for (tuple, client) in behind {
        let hook = if tuple.dst == F::addr(POD_A) {
            Hook::TC_UPLINK_OUT
        } else {
            Hook::TC_UPLINK_IN
        };
        let reply = world.sends(hook, UPLINK, &Frame::<F>::answer(proto, &tuple));
        prop_assert_eq!(reply, client.inverse());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn connections_never_share_a_reply_tuple(
        flows in prop::collection::btree_set((0u16..12, 0u16..3, any::<bool>()), 1..60),
    ) {
        for proto in [TCP, UDP, SCTP] {
            every_reply_reaches_its_client::<V4>(proto, &flows)?;
            every_reply_reaches_its_client::<V6>(proto, &flows)?;
        }
    }
}

fn open_from<F: Net>(world: &mut World, proto: u8, client: u16) -> Frame<F> {
    F::maps_mut(world)
        .routes
        .insert(F::addr(client), hop(UPLINK));
    Frame::new(proto, (F::addr(client), 4000), (F::addr(NODE), NODE_PORT))
}

fn a_taken_port_is_followed_by_the_next_of_the_round<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    (world.config_mut().port_first, world.config_mut().port_last) = (2000, 2001);
    for (client, port) in [(1000, 4000), (1001, 2000), (1002, 2001)] {
        let open = open_from::<F>(&mut world, proto, client);
        let behind = world.sends(Hook::TC_UPLINK_IN, UPLINK, &open);
        assert_eq!(behind.sport.get(), port);
    }
    let last = open_from::<F>(&mut world, proto, 1003);
    let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut last.build());
    assert_eq!(verdict, Verdict::drop(DropReason::NoPort));
    assert_eq!(world.reason_count(Hook::TC_UPLINK_IN, Reason::NoPort), 1);
    assert_eq!(F::maps(&world).pending.len(), 6, "nothing is left of it");
}

fn a_port_from_which_the_node_itself_talks_to_the_backend_is_left_to_it<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    (world.config_mut().port_first, world.config_mut().port_last) = (2000, 2001);
    for port in [4000, 2000] {
        let answer = tuple::<F>((REMOTE, BACKEND_PORT), (NODE, port));
        F::maps_mut(&mut world).sockets.insert((answer, proto));
    }
    let open = open_from::<F>(&mut world, proto, 1000);
    let behind = world.sends(Hook::TC_UPLINK_IN, UPLINK, &open);
    assert_eq!(behind.sport.get(), 2001);
}

fn an_expired_connection_gives_up_its_reply_tuple<F: Net>(proto: u8) {
    let mut world = World::with_backend(REMOTE);
    let first = open_from::<F>(&mut world, proto, 1000);
    let behind = world.sends(Hook::TC_UPLINK_IN, UPLINK, &first);
    world.pass_time(world.config.unwrap().tcp_closed);
    let second = open_from::<F>(&mut world, proto, 1001);
    assert_eq!(world.sends(Hook::TC_UPLINK_IN, UPLINK, &second), behind);
    let reply = Frame::<F>::answer(proto, &behind);
    let reply = world.sends(Hook::TC_UPLINK_IN, UPLINK, &reply);
    assert_eq!(reply, second.tuple.inverse());
    let again = world.sends(Hook::TC_UPLINK_IN, UPLINK, &first);
    assert_ne!(again, behind, "the first one begins anew");
}

/// A connection from outside that has ended, of which the table has lost one direction, and then the same client's next one.
fn after_half_is_lost<F: Net>(proto: u8, lost_is_reply: bool) -> (World, Frame<F>) {
    let mut world = World::with_backend(REMOTE);
    let first = open_from::<F>(&mut world, proto, 1000);
    let behind = world.sends(Hook::TC_UPLINK_IN, UPLINK, &first);
    let reply = Frame::<F>::answer(proto, &behind);
    world.sends(Hook::TC_UPLINK_IN, UPLINK, &reply);
    for flags in [tcp::ACK, tcp::RST] {
        let next = first.clone().flags(flags);
        world.sends(Hook::TC_UPLINK_IN, UPLINK, &next);
    }
    let flows = F::maps(&world).flows(Table::confirmed(proto));
    let is_lost = |key: &_| flows.get(key).unwrap().is_reply() == lost_is_reply;
    let lost = flows.keys().into_iter().find(is_lost).unwrap();
    assert!(flows.remove(&lost));
    (world, first)
}

/// A process of the node goes to the same backend from the port that the one from outside has there.
fn open_from_node<F: Net>(world: &World, proto: u8) -> Frame<F> {
    let open = Frame::<F>::new(
        proto,
        (F::addr(NODE), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    let behind = world.sends(Hook::TC_UPLINK_OUT, UPLINK, &open);
    assert_eq!(behind, tuple::<F>((NODE, 4000), (REMOTE, BACKEND_PORT)));
    open
}

fn a_new_connection_leaves_alone_the_one_that_took_its_old_reply_tuple<F: Net>(proto: u8) {
    let (world, first) = after_half_is_lost::<F>(proto, true);
    let other = open_from_node::<F>(&world, proto);
    world.pass_time(world.config.unwrap().udp_idle);
    let reply = Frame::<F>::answer(proto, &tuple::<F>((NODE, 4000), (REMOTE, BACKEND_PORT)));
    let restored = other.tuple.inverse();
    assert_eq!(world.sends(Hook::TC_UPLINK_IN, UPLINK, &reply), restored);
    let next = other.flags(tcp::ACK);
    world.sends(Hook::TC_UPLINK_OUT, UPLINK, &next);
    // For UDP, the first one is over by then.
    world.pass_time(world.config.unwrap().udp_idle - 1);
    world.sends(Hook::TC_UPLINK_OUT, UPLINK, &next);
    world.pass_time(1);
    world.sends(Hook::TC_UPLINK_IN, UPLINK, &first);
    assert_eq!(world.sends(Hook::TC_UPLINK_IN, UPLINK, &reply), restored);
}

fn removing_half_an_expired_connection_leaves_its_clients_next_one_alone<F: Net>(proto: u8) {
    let (mut world, first) = after_half_is_lost::<F>(proto, false);
    world.serve(SERVICE, CLUSTER_IP, &[POD_A]);
    let behind = world.sends(Hook::TC_UPLINK_IN, UPLINK, &first);
    assert_eq!(behind.dst, F::addr(POD_A));
    let reply = Frame::<F>::answer(proto, &behind);
    world.sends(Hook::TC_UPLINK_OUT, UPLINK, &reply);
    let next = first.flags(tcp::ACK);
    world.sends(Hook::TC_UPLINK_IN, UPLINK, &next);
    world.pass_time(world.config.unwrap().udp_idle - 1);
    world.sends(Hook::TC_UPLINK_IN, UPLINK, &next);
    world.pass_time(1);
    world.serve(SERVICE, CLUSTER_IP, &[REMOTE]);
    open_from_node::<F>(&world, proto);
    assert_eq!(world.sends(Hook::TC_UPLINK_IN, UPLINK, &next), behind);
}

/// Whoever asks for too much waits; nobody else does. Pods of a node have one /64; outside it is one subscriber's.
fn a_source_has_a_share_of_the_unanswered_flows<F: Net>(proto: u8) {
    const SHARE: u16 = 8;
    for (at, back) in [
        ((Hook::TC_WORKLOAD_IN, VETH_A), Hook::TC_WORKLOAD_OUT),
        ((Hook::TC_UPLINK_IN, UPLINK), Hook::TC_UPLINK_OUT),
    ] {
        let mut world = World::with_backend(POD_B);
        world.config_mut().share = SHARE.into();
        let ask = |client: u16, port| {
            let to = (F::addr(CLUSTER_IP), SERVICE_PORT);
            Frame::<F>::new(proto, (F::addr(client), port), to)
        };
        let is_refused = |world: &World, frame: &Frame<F>| {
            let verdict = world.run(at.0, at.1, &mut frame.build());
            verdict == Verdict::drop(DropReason::SourceShare)
        };
        for port in 0..SHARE {
            world.sends(at.0, at.1, &ask(CLIENT, 5000 + port));
        }
        let more = ask(CLIENT, 6000);
        assert!(is_refused(&world, &more));
        // The drop is the service's, too.
        assert_eq!(world.service_count(SERVICE).dropped, 1);
        let is_one = F::IS_V6 && !at.0.edge.is_workload();
        assert_eq!(is_refused(&world, &ask(REMOTE, 6000)), is_one);
        // What it has goes on, and one that is answered leaves its place.
        let first = ask(CLIENT, 5000);
        let behind = world.sends(at.0, at.1, &first);
        world.sends(back, at.1, &Frame::<F>::answer(proto, &behind));
        world.sends(at.0, at.1, &first.flags(tcp::ACK));
        world.sends(at.0, at.1, &more);
        assert!(is_refused(&world, &ask(CLIENT, 6001)));
        world.pass_time(world.config.unwrap().unanswered);
        world.sends(at.0, at.1, &ask(CLIENT, 6001));
    }
}

/// A client's own port is kept where it can be. Many of one client side by side leave others theirs.
fn adjacent_source_ports_leave_room_for_other_clients<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let ask = |client: u16, port| {
        let to = (F::addr(NODE), NODE_PORT);
        Frame::<F>::new(proto, (F::addr(client), port), to)
    };
    for port in 1024..9_000 {
        world.sends(Hook::TC_UPLINK_IN, UPLINK, &ask(CLIENT, port));
    }
    for port in 2000..2100 {
        world.sends(Hook::TC_UPLINK_IN, UPLINK, &ask(REMOTE_TUNNEL, port));
    }
}

cases! {
    a_source_has_a_share_of_the_unanswered_flows
    adjacent_source_ports_leave_room_for_other_clients
    a_new_connection_leaves_alone_the_one_that_took_its_old_reply_tuple
    removing_half_an_expired_connection_leaves_its_clients_next_one_alone
    a_taken_port_is_followed_by_the_next_of_the_round
    a_port_from_which_the_node_itself_talks_to_the_backend_is_left_to_it
    an_expired_connection_gives_up_its_reply_tuple
}
