//! Whose word counts: packets whose numbers show that their sender is an end of the connection, and packets that anybody could send.

use crate::world::*;
use proxy_common::{
    abi::{IfIndex, TCP},
    edge::{hook::Hook, verdict::Verdict},
    reason::PassReason,
    wire::parse::tcp,
};

const AT: (Hook, IfIndex) = (Hook::TC_UPLINK_IN, UPLINK);
const OUT: Hook = Hook::TC_UPLINK_OUT;

fn open<F: Net>(proto: u8) -> Frame<F> {
    Frame::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT))
}

/// A connection to a local backend, opened and confirmed; its first packet, and the answer to it.
fn established<F: Net>(world: &World, proto: u8) -> (Frame<F>, Frame<F>) {
    let ask = open::<F>(proto);
    let behind = world.sends(AT.0, AT.1, &ask);
    let answer = Frame::<F>::answer(proto, &behind);
    world.sends(OUT, UPLINK, &answer);
    world.sends(AT.0, AT.1, &ask.clone().flags(tcp::ACK));
    assert_eq!(F::maps(world).confirmed_len(), 2);
    (ask, answer)
}

/// Sends a SYN straight to the backend from the connection's client and port. Is the connection still there?
fn outlives_a_direct_syn<F: Net>(world: &World) -> bool {
    let direct = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(POD_A), BACKEND_PORT));
    let verdict = world.run(AT.0, AT.1, &mut direct.build());
    assert_eq!(verdict, Verdict::pass(PassReason::NotService));
    F::maps(world).confirmed_len() == 2
}

fn a_reset_counts_where_its_number_fits<F: Net>() {
    type Change = fn(u32) -> u32;
    let cases: [(&str, bool, Change, bool); 7] = [
        ("the next number of the client", false, |n| n, true),
        ("within the window", false, |n| n + 65_535, true),
        ("before what was acknowledged", false, |n| n - 65_536, false),
        ("beyond the window", false, |n| n + 131_072, false),
        ("half the space away", false, |n| n ^ 0x8000_0000, false),
        ("the next number of the backend", true, |n| n, true),
        ("another of the backend", true, |n| n - 400_000, false),
    ];
    for (name, from_backend, change, counts) in cases {
        let world = World::with_backend(POD_A);
        let (ask, answer) = established::<F>(&world, TCP);
        let (hook, frame) = if from_backend {
            (OUT, answer)
        } else {
            (AT.0, ask)
        };
        let mut reset = frame.flags(tcp::RST | tcp::ACK);
        reset.seq = change(reset.seq);
        world.sends(hook, AT.1, &reset);
        assert_eq!(outlives_a_direct_syn::<F>(&world), !counts, "{name}");
    }
}

fn a_connection_that_goes_on_after_a_reset_was_not_over<F: Net>() {
    for by_backend in [false, true] {
        let world = World::with_backend(POD_A);
        let (ask, answer) = established::<F>(&world, TCP);
        world.sends(AT.0, AT.1, &ask.clone().flags(tcp::RST));
        if by_backend {
            world.sends(OUT, UPLINK, &answer.flags(tcp::ACK));
        } else {
            world.sends(AT.0, AT.1, &ask.flags(tcp::ACK));
        }
        assert!(outlives_a_direct_syn::<F>(&world));
    }
}

/// The numbers go on with the data, and the test of a reset with them.
fn the_last_acknowledged_number_counts<F: Net>() {
    let world = World::with_backend(POD_A);
    let (ask, answer) = established::<F>(&world, TCP);
    let mut later = answer.flags(tcp::ACK);
    for _ in 0..64 {
        later.ack = later.ack.wrapping_add(0xf_0000);
        world.sends(OUT, UPLINK, &later);
    }
    // Nobody acknowledges so much at once: who sets the number knows none.
    let mut blind = later.clone();
    blind.ack = blind.ack.wrapping_add(0x2000_0000);
    world.sends(OUT, UPLINK, &blind);
    let mut fits_blind = ask.clone().flags(tcp::RST);
    fits_blind.seq = blind.ack;
    world.sends(AT.0, AT.1, &fits_blind);
    assert!(outlives_a_direct_syn::<F>(&world), "a number of nobody's");
    let old = ask.clone().flags(tcp::RST);
    world.sends(AT.0, AT.1, &old);
    assert!(outlives_a_direct_syn::<F>(&world), "an old number");
    let mut new = ask.flags(tcp::RST);
    new.seq = later.ack;
    world.sends(AT.0, AT.1, &new);
    assert!(!outlives_a_direct_syn::<F>(&world), "the newest");
}

/// Of one connection after that time, another client gets the port.
fn a_fin_or_rst_with_wrong_numbers_does_not_shorten_a_flow<F: Net>(proto: u8) {
    for flags in [tcp::RST, tcp::FIN | tcp::ACK] {
        let world = World::with_backend(REMOTE);
        let ask = open::<F>(proto);
        let behind = world.sends(AT.0, AT.1, &ask);
        world.sends(AT.0, AT.1, &Frame::<F>::answer(proto, &behind));
        world.sends(AT.0, AT.1, &ask.clone().flags(tcp::ACK));
        world.sends(AT.0, AT.1, &ask.clone().flags(flags).blind());
        let answer = Frame::<F>::answer(proto, &behind).flags(flags).blind();
        world.sends(AT.0, AT.1, &answer);
        world.pass_time(world.config.unwrap().tcp_closed);
        let other = Frame::<F>::new(
            proto,
            (F::addr(REMOTE_TUNNEL), 4000),
            (F::addr(NODE), NODE_PORT),
        );
        assert_ne!(world.sends(AT.0, AT.1, &other), behind);
        let still = world.sends(AT.0, AT.1, &Frame::<F>::answer(proto, &behind));
        assert_eq!(still, ask.tuple.inverse());
    }
}

fn only_a_client_that_saw_the_answer_confirms_its_flow<F: Net>(proto: u8) {
    // Who answers, who goes on: with the connection's numbers, or any.
    for (answer_fits, client_fits) in [(false, false), (false, true), (true, false), (true, true)] {
        let world = World::with_backend(REMOTE);
        let ask = open::<F>(proto);
        let behind = world.sends(AT.0, AT.1, &ask);
        let or_blind = |frame: Frame<F>, fits| if fits { frame } else { frame.blind() };
        let answer = or_blind(Frame::<F>::answer(proto, &behind), answer_fits);
        let next = or_blind(ask.clone().flags(tcp::ACK), client_fits);
        assert_eq!(world.sends(AT.0, AT.1, &answer), ask.tuple.inverse());
        assert_eq!(world.sends(AT.0, AT.1, &next), behind);
        let is_told = proto == proxy_common::abi::UDP || (answer_fits && client_fits);
        let confirmed = if is_told { 2 } else { 0 };
        assert_eq!(F::maps(&world).confirmed_len(), confirmed);
        // The ends themselves come through all the same.
        world.sends(AT.0, AT.1, &Frame::<F>::answer(proto, &behind));
        world.sends(AT.0, AT.1, &ask.flags(tcp::ACK));
        assert_eq!(F::maps(&world).confirmed_len(), 2);
    }
}

/// Of an ended attempt, whose answer never came, the next one has other numbers.
fn a_client_that_repeats_its_syn_with_other_numbers_is_confirmed<F: Net>() {
    let world = World::with_backend(REMOTE);
    let mut first = open::<F>(TCP);
    first.seq = 5;
    world.sends(AT.0, AT.1, &first);
    world.pass_time(world.config.unwrap().refresh);
    let ask = open::<F>(TCP);
    let behind = world.sends(AT.0, AT.1, &ask);
    // Whoever sends another at once is not it.
    world.sends(AT.0, AT.1, &ask.clone().blind());
    world.sends(AT.0, AT.1, &Frame::<F>::answer(TCP, &behind));
    world.sends(AT.0, AT.1, &ask.flags(tcp::ACK));
    assert_eq!(F::maps(&world).confirmed_len(), 2);
}

fn a_refusal_by_the_backend_is_believed<F: Net>() {
    let world = World::with_backend(POD_A);
    let ask = open::<F>(TCP);
    let behind = world.sends(AT.0, AT.1, &ask);
    let mut refusal = Frame::<F>::answer(TCP, &behind).flags(tcp::RST | tcp::ACK);
    refusal.seq = 0;
    world.sends(OUT, UPLINK, &refusal);
    let direct = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(POD_A), BACKEND_PORT));
    world.run(AT.0, AT.1, &mut direct.build());
    assert_eq!(F::maps(&world).pending.len(), 0);
}

fn a_half_closed_connection_keeps_its_port_for_an_hour<F: Net>() {
    let world = World::with_backend(REMOTE);
    let ask = open::<F>(TCP);
    let behind = world.sends(AT.0, AT.1, &ask);
    let answer = Frame::<F>::answer(TCP, &behind);
    world.sends(AT.0, AT.1, &answer);
    world.sends(AT.0, AT.1, &ask.clone().flags(tcp::ACK));
    world.sends(AT.0, AT.1, &ask.clone().flags(tcp::FIN | tcp::ACK));
    world.pass_time(world.config.unwrap().tcp_half - 1);
    let other = |port| {
        let client = F::addr(REMOTE_TUNNEL);
        Frame::<F>::new(TCP, (client, 4000), (F::addr(NODE), port))
    };
    assert_ne!(world.sends(AT.0, AT.1, &other(NODE_PORT)), behind);
    let still = world.sends(AT.0, AT.1, &answer.flags(tcp::ACK));
    assert_eq!(still, ask.tuple.inverse());
}

cases! {
    a_fin_or_rst_with_wrong_numbers_does_not_shorten_a_flow
    only_a_client_that_saw_the_answer_confirms_its_flow
}
families! {
    a_reset_counts_where_its_number_fits
    a_connection_that_goes_on_after_a_reset_was_not_over
    the_last_acknowledged_number_counts
    a_client_that_repeats_its_syn_with_other_numbers_is_confirmed
    a_refusal_by_the_backend_is_believed
    a_half_closed_connection_keeps_its_port_for_an_hour
}
