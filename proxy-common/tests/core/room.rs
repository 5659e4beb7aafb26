//! Who goes where there is no room: never an open connection.

use crate::world::*;
use proxy_common::{
    abi::{IfIndex, SCTP, TCP, UDP},
    edge::{hook::Hook, verdict::Verdict},
    reason::DropReason,
    wire::parse::tcp,
};

const AT: (Hook, IfIndex) = (Hook::TC_UPLINK_IN, UPLINK);

/// A connection, or a flow of datagrams, of a client's port by a full proxy.
struct Client<F: Net> {
    first: Frame<F>,
    reply: Frame<F>,
}

impl<F: Net> Client<F> {
    /// Three packets: the last confirms it, if there is room.
    fn connect(world: &World, proto: u8, port: u16) -> Self {
        let first = Frame::<F>::new(proto, (F::addr(CLIENT), port), (F::addr(NODE), NODE_PORT));
        let behind = world.sends(AT.0, AT.1, &first);
        let reply = Frame::<F>::answer(proto, &behind);
        world.sends(AT.0, AT.1, &reply);
        let client = Self { first, reply };
        client.goes_on(world);
        client
    }

    /// Both directions pass, each by its rewrite.
    fn goes_on(&self, world: &World) {
        let next = world.sends(AT.0, AT.1, &self.first.clone().flags(tcp::ACK));
        assert_eq!(next, self.reply.tuple.inverse());
        let back = world.sends(AT.0, AT.1, &self.reply.clone().flags(tcp::ACK));
        assert_eq!(back, self.first.tuple.inverse());
    }

    fn closes(&self, world: &World) {
        let last = tcp::FIN | tcp::ACK;
        world.sends(AT.0, AT.1, &self.first.clone().flags(last));
        world.sends(AT.0, AT.1, &self.reply.clone().flags(last));
    }
}

fn connections<F: Net>(world: &World) -> usize {
    F::maps(world).connections.len() / 2
}

fn closed_connections_leave_when_their_time_is_over<F: Net>() {
    for proto in [TCP, SCTP] {
        let world = World::with_backend(REMOTE);
        let open = Client::<F>::connect(&world, proto, 4000);
        for port in 0..20 {
            Client::<F>::connect(&world, proto, 5000 + port).closes(&world);
        }
        assert_eq!(connections::<F>(&world), 21, "they are remembered");
        world.pass_time(world.config.unwrap().tcp_closed);
        // Two leave for each that comes.
        for port in 0..10 {
            Client::<F>::connect(&world, proto, 6000 + port).closes(&world);
            assert_eq!(connections::<F>(&world), 21 - (port as usize + 1));
        }
        open.goes_on(&world);
    }
}

fn as_many_closed_connections_are_remembered_as_the_queue_has_room_for<F: Net>() {
    let world = World::with_backend(REMOTE);
    let open = Client::<F>::connect(&world, TCP, 4000);
    let many = CLOSED_ROOM as u16 + 100;
    for port in 0..many {
        Client::<F>::connect(&world, TCP, 5000 + port).closes(&world);
    }
    assert!(connections::<F>(&world) <= CLOSED_ROOM as usize + 1);
    // The first ones went, the last ones are remembered.
    let flows = &F::maps(&world).connections;
    let is_remembered = |port| {
        flows
            .keys()
            .iter()
            .any(|key| key.tuple.sport.get() == 5000 + port)
    };
    assert!(!is_remembered(0) && is_remembered(many - 1));
    open.goes_on(&world);
}

fn a_connection_that_went_on_after_a_reset_stays<F: Net>() {
    let world = World::with_backend(REMOTE);
    let open = Client::<F>::connect(&world, TCP, 4000);
    world.sends(AT.0, AT.1, &open.reply.clone().flags(tcp::RST));
    open.goes_on(&world);
    world.pass_time(world.config.unwrap().tcp_closed);
    for port in 0..3 {
        Client::<F>::connect(&world, TCP, 5000 + port).closes(&world);
    }
    open.goes_on(&world);
    assert_eq!(connections::<F>(&world), 4);
}

fn a_full_table_keeps_its_connections_and_refuses_others<F: Net>() {
    let mut world = World::with_backend(REMOTE);
    F::maps_mut(&mut world).connections.capacity = 8;
    let open: Vec<_> = (0..4)
        .map(|port| Client::<F>::connect(&world, TCP, 4000 + port))
        .collect();
    // The first for which there is no room has begun by then: it goes on, in the table of new ones.
    let waiting = Client::<F>::connect(&world, TCP, 5000);
    assert_eq!(
        (connections::<F>(&world), F::maps(&world).pending.len()),
        (4, 2)
    );
    waiting.goes_on(&world);
    // Of the next ones none begins.
    let refused = |port| {
        let next = Frame::<F>::new(TCP, (F::addr(CLIENT), port), (F::addr(NODE), NODE_PORT));
        world.run(AT.0, AT.1, &mut next.build())
    };
    let full = Verdict::drop(DropReason::TableFull);
    assert_eq!(refused(5001), full);
    assert_eq!(world.reason_count(AT.0, DropReason::TableFull.reason()), 1);
    for client in &open {
        client.goes_on(&world);
    }
    // Datagrams have room of their own.
    Client::<F>::connect(&world, UDP, 5002).goes_on(&world);
    // One that is closed goes for the one that waits, also if another CPU has it in its queue.
    world.cpu.set(CPUS - 1);
    open[0].closes(&world);
    world.cpu.set(0);
    waiting.goes_on(&world);
    assert_eq!(
        (connections::<F>(&world), F::maps(&world).pending.len()),
        (4, 0)
    );
}

fn it_is_asked_anew_whether_the_table_is_full<F: Net>() {
    let mut world = World::with_backend(REMOTE);
    F::maps_mut(&mut world).connections.capacity = 2;
    let open = Client::<F>::connect(&world, TCP, 4000);
    Client::<F>::connect(&world, TCP, 5000);
    world.pass_time(world.config.unwrap().unanswered / 8);
    // Nobody was refused for that long: the next one may try.
    Client::<F>::connect(&world, TCP, 5001);
    open.goes_on(&world);
}

fn no_number_of_datagrams_takes_the_room_of_a_connection<F: Net>() {
    let mut world = World::with_backend(REMOTE);
    F::maps_mut(&mut world).datagrams.capacity = 8;
    let open = Client::<F>::connect(&world, TCP, 4000);
    for port in 0..100 {
        Client::<F>::connect(&world, UDP, 5000 + port);
    }
    let maps = F::maps(&world);
    assert_eq!((maps.connections.len(), maps.datagrams.len()), (2, 8));
    open.goes_on(&world);
}

families! {
    a_connection_that_went_on_after_a_reset_stays
    a_full_table_keeps_its_connections_and_refuses_others
    as_many_closed_connections_are_remembered_as_the_queue_has_room_for
    closed_connections_leave_when_their_time_is_over
    it_is_asked_anew_whether_the_table_is_full
    no_number_of_datagrams_takes_the_room_of_a_connection
}
