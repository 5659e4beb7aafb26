//! A reply tuple belongs to one connection alone, and every reply finds its own client.

use crate::world::*;
use proptest::prelude::*;
use proxy_common::{
    abi::{SCTP, TCP, UDP},
    addr::{V4, V6},
    hook::Hook,
    reason::Reason,
    verdict::Verdict,
};
use std::collections::{BTreeSet, HashMap};

/// Opens connections from (client, port) to one of two services with a common backend, then answers each.
fn every_reply_goes_home<F: Net>(
    proto: u8,
    flows: &BTreeSet<(u16, u16, bool)>,
) -> Result<(), TestCaseError> {
    let mut world = World::with_backends(&[REMOTE, POD_A]);
    world.serve(SERVICE + 1, CLUSTER_IP + 1, &[REMOTE, POD_A]);
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
            every_reply_goes_home::<V4>(proto, &flows)?;
            every_reply_goes_home::<V6>(proto, &flows)?;
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
    assert_eq!(verdict, Verdict::drop(Reason::NoPort));
    assert_eq!(world.reason_count(Hook::TC_UPLINK_IN, Reason::NoPort), 1);
    assert_eq!(F::maps(&world).pending.len(), 6, "nothing is left of it");
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

cases! {
    a_taken_port_is_followed_by_the_next_of_the_round
    an_expired_connection_gives_up_its_reply_tuple
}
