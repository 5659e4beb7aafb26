//! What a dry run tells. That it leaves no trace, and foretells each packet of each test, is asserted where packets are sent
//! ([`World::run`]).

use crate::world::*;
use proxy_common::{
    abi::{Route, Slot, TCP},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    explain::{Step, trace::STEPS},
    reason::{DropReason, Reason},
    tables::Table,
};

/// What a packet that comes in by the uplink asks.
fn asked<F: Net>(world: &World, frame: &Frame<F>) -> (Verdict, Vec<Step<F::Addr>>, u32) {
    world.be_at(UPLINK);
    let (verdict, told) = world.explain(Hook::TC_UPLINK_IN, &mut frame.build());
    (verdict, told.steps::<F>().collect(), told.count)
}

fn a_new_flows_steps_are_told_in_their_order<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let frame = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    world.be_at(UPLINK);
    let (verdict, told) = world.explain(Hook::TC_UPLINK_IN, &mut frame.build());
    assert_eq!(verdict.action, Action::Transmit);
    assert_eq!(told.action(), Some(Action::Transmit));
    assert_eq!(told.end.service, SERVICE);
    assert_eq!(told.end.backend, backend_id(REMOTE));
    assert_eq!(told.end.hop_ifindex, UPLINK);
    assert_eq!(told.end.hop_route, Route::Forward as u32);
    let mut steps = told.steps::<F>();
    let mut then = |what: &str, is_it: &dyn Fn(&Step<F::Addr>) -> bool| {
        assert!(steps.any(|step| is_it(&step)), "{what} is not told next");
    };
    then("the device", &|step| {
        matches!(
            step,
            Step::Device {
                ifindex: UPLINK,
                found: Some(_)
            }
        )
    });
    then("the gate", &|step| {
        matches!(step, Step::Gate { is_open: true, .. })
    });
    then(
        "no flow",
        &|step| matches!(step, Step::Flow { table: Table::Pending, key, found: None } if key.tuple == frame.tuple),
    );
    then(
        "no frontend of the address",
        &|step| matches!(step, Step::Frontend { key, found: None } if key.addr == F::addr(NODE)),
    );
    then(
        "the address",
        &|step| matches!(step, Step::LocalAddr { addr, found: Some(_) } if *addr == F::addr(NODE)),
    );
    then(
        "the node port",
        &|step| matches!(step, Step::Frontend { found: Some(found), .. } if found.service() == SERVICE),
    );
    then("the service", &|step| {
        matches!(
            step,
            Step::Service {
                id: SERVICE,
                found: Some(_)
            }
        )
    });
    then(
        "the slot",
        &|step| matches!(step, Step::Slot { index: Slot(0), found } if *found == Some(backend_id(REMOTE))),
    );
    then(
        "the backend",
        &|step| matches!(step, Step::Backend { found: Some(backend), .. } if backend.addr == F::addr(REMOTE)),
    );
    then(
        "the route",
        &|step| matches!(step, Step::Fib { dst, found: Some(found), .. } if *dst == F::addr(REMOTE) && found.ifindex == UPLINK),
    );
    then(
        "the reply's tuple",
        &|step| matches!(step, Step::PutFlow { table: Table::Pending, key, stored: Some(_) } if key.tuple.src == F::addr(REMOTE)),
    );
    then(
        "the flow",
        &|step| matches!(step, Step::PutFlow { key, stored: Some(flow), .. } if key.tuple == frame.tuple && flow.to.dst == F::addr(REMOTE)),
    );
    then("the packet", &|step| {
        matches!(
            step,
            Step::Packet {
                is_reply: false,
                ..
            }
        )
    });
    then("the reason", &|step| {
        matches!(
            step,
            Step::Reason {
                reason: Some(Reason::Translated),
                ..
            }
        )
    });
    then("the connection", &|step| matches!(step, Step::Connection));
}

fn a_known_flow_is_told_as_such<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let frame = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    world.sends(Hook::TC_UPLINK_IN, UPLINK, &frame);
    let (_, steps, _) = asked(&world, &frame);
    let is_found = |step: &Step<F::Addr>| matches!(step, Step::Flow { key, found: Some(flow), .. } if key.tuple == frame.tuple && flow.backend == backend_id(REMOTE));
    assert!(steps.iter().any(is_found), "{steps:?}");
    assert!(!steps.iter().any(|step| matches!(step, Step::Slot { .. })));
}

fn the_longest_search_for_a_port_is_told_whole<F: Net>() {
    let mut world = World::with_backend(REMOTE);
    let config = world.config_mut();
    (config.port_first, config.port_last) = (5000, 5000);
    let open = |client: u16| {
        Frame::<F>::new(
            TCP,
            (F::addr(1000 + client), 4000),
            (F::addr(NODE), NODE_PORT),
        )
    };
    for client in 0..3 {
        F::maps_mut(&mut world)
            .routes
            .insert(F::addr(1000 + client), hop(UPLINK));
    }
    for client in 0..2 {
        world.sends(Hook::TC_UPLINK_IN, UPLINK, &open(client));
    }
    let (verdict, steps, count) = asked(&world, &open(2));
    assert_eq!(verdict, Verdict::drop(DropReason::NoPort));
    let ports = steps.iter().filter(|step| matches!(step, Step::NextPort));
    assert_eq!(ports.count(), 16);
    // Of such searches there are two at most, and each port of them may cost two look-ups.
    let others = count as usize - steps.iter().filter(|step| is_search(step)).count();
    assert!(others + 2 * 16 * 3 + 8 < STEPS, "{others} others");
    assert_eq!(steps.len(), count as usize);
}

fn is_search<A>(step: &Step<A>) -> bool {
    matches!(step, Step::NextPort | Step::Flow { .. })
}

cases!(a_new_flows_steps_are_told_in_their_order a_known_flow_is_told_as_such);
families!(the_longest_search_for_a_port_is_told_whole);
