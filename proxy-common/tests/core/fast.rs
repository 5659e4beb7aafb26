//! What the fast path finishes by itself, and what it leaves to the slow one.

use crate::world::*;
use proxy_common::{
    abi::{IfIndex, SCTP, TCP, UDP, gate},
    addr::Be16,
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    reason::PassReason,
    tables::Fib,
    wire::parse::tcp,
};

const AT: (Hook, IfIndex) = (Hook::TC_UPLINK_IN, UPLINK);

/// A confirmed connection by a full proxy, both directions' hints filled in: a packet each way.
pub fn established<F: Net>(proto: u8) -> (World, Frame<F>, Frame<F>) {
    let world = World::with_backend(REMOTE);
    let open = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    let behind = world.sends(AT.0, AT.1, &open);
    let answer = Frame::<F>::answer(proto, &behind);
    world.sends(AT.0, AT.1, &answer);
    let forth = open.flags(tcp::ACK);
    let back = answer.flags(tcp::ACK);
    for _ in 0..2 {
        world.sends(AT.0, AT.1, &forth);
        world.sends(AT.0, AT.1, &back);
    }
    assert_eq!(F::maps(&world).confirmed_len(), 2);
    (world, forth, back)
}

/// Does the slow path get the packet?
fn is_slow<F: Net>(world: &World, frame: &Frame<F>) -> bool {
    let before = world.slowed.get();
    world.run(AT.0, AT.1, &mut frame.build());
    world.slowed.get() != before
}

fn data_of_an_established_flow_is_fast<F: Net>(proto: u8) {
    let (world, forth, back) = established::<F>(proto);
    for _ in 0..3 {
        assert!(!is_slow(&world, &forth) && !is_slow(&world, &back));
        // Not yet the step of time at which a flow is touched.
        world.pass_time(world.config.unwrap().refresh / 4);
    }
}

fn a_flow_is_touched_once_in_a_step_of_time<F: Net>(proto: u8) {
    let (world, forth, _) = established::<F>(proto);
    let refresh = world.config.unwrap().refresh;
    world.pass_time(refresh - 1);
    assert!(!is_slow(&world, &forth));
    world.pass_time(1);
    assert!(is_slow(&world, &forth));
    assert!(!is_slow(&world, &forth));
}

fn a_segment_that_begins_or_ends_a_connection_is_slow<F: Net>() {
    for flags in [tcp::SYN, tcp::FIN | tcp::ACK, tcp::RST, tcp::RST | tcp::ACK] {
        let (world, forth, _) = established::<F>(TCP);
        assert!(is_slow(&world, &forth.flags(flags)), "{flags:#x}");
    }
    // What comes after a RST says that it was not the end.
    let (world, forth, back) = established::<F>(TCP);
    assert!(is_slow(&world, &back.flags(tcp::RST | tcp::ACK)));
    assert!(is_slow(&world, &forth));
    assert!(!is_slow(&world, &forth));
}

fn a_datagram_to_a_backend_that_is_gone_is_slow<F: Net>() {
    for proto in [UDP, TCP] {
        let (mut world, forth, back) = established::<F>(proto);
        let backend = world.backend_mut::<F>(REMOTE);
        backend.generation = backend.generation.next();
        assert!(!is_slow(&world, &back), "replies go on");
        assert_eq!(is_slow(&world, &forth), proto == UDP);
    }
}

fn hints_of_another_epoch_are_slow<F: Net>(proto: u8) {
    let (mut world, forth, _) = established::<F>(proto);
    let config = world.config_mut();
    config.epoch = config.epoch.next();
    assert!(is_slow(&world, &forth));
    assert!(!is_slow(&world, &forth), "they are looked up once");
}

fn a_packet_that_may_not_leave_is_slow<F: Net>(proto: u8) {
    let (world, forth, _) = established::<F>(proto);
    assert!(is_slow(&world, &forth.clone().ttl(1)));
    assert!(!is_slow(&world, &forth.clone().ttl(2)));
    let headers = F::HEADER_LEN + if proto == TCP { 20 } else { 8 };
    assert!(!is_slow(&world, &forth.clone().payload(1500 - headers)));
    assert!(is_slow(&world, &forth.payload(1501 - headers)));
}

fn a_frame_that_the_stack_would_not_take_is_slow<F: Net>(proto: u8) {
    let (world, forth, _) = established::<F>(proto);
    let before = world.slowed.get();
    // Less than the header tells of.
    let mut cut = forth.build();
    cut.bytes.pop();
    let verdict = world.run(AT.0, AT.1, &mut cut);
    assert_eq!(verdict, Verdict::pass(PassReason::BadHeader));
    assert_eq!(world.slowed.get(), before + 1);
    // A header that tells of less than a transport header.
    let mut short = forth.build();
    shorten::<F>(&mut short.bytes, 7);
    let verdict = world.run(AT.0, AT.1, &mut short);
    assert_eq!(verdict.action, Action::Pass);
    assert_eq!(world.slowed.get(), before + 2);
    // Another device than the flow expects: that one is the flow's from then on.
    world.run(AT.0, TUNNEL, &mut forth.build());
    assert_eq!(world.slowed.get(), before + 3);
}

/// Makes the IP header tell of so many bytes behind it.
fn shorten<F: Net>(bytes: &mut [u8], behind: u16) {
    if F::IS_V6 {
        bytes[18..20].copy_from_slice(&behind.to_be_bytes());
    } else {
        bytes[16..18].copy_from_slice(&(20 + behind).to_be_bytes());
        bytes[24..26].fill(0);
        let check = !sum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
    }
}

/// All of a packet that the fast path writes: addresses of the frame, the hop limit where it forwards, and sums.
fn the_fast_path_writes_what_the_slow_one_does<F: Net>(proto: u8) {
    let (world, forth, _) = established::<F>(proto);
    let Fib::Hop { macs, .. } = hop(UPLINK) else {
        unreachable!()
    };
    let before = world.slowed.get();
    let (verdict, packet) = world.plays(AT.0, AT.1, &forth.clone().payload(0));
    assert_eq!(verdict, Verdict::TRANSMIT);
    assert_eq!(packet.bytes[..6], macs.dst());
    assert_eq!(packet.bytes[6..12], macs.swapped().dst());
    assert_eq!(see::<F>(&packet).ttl, forth.ttl - 1);
    assert_eq!(world.slowed.get(), before);

    // By the stack, which finds the next hop itself.
    let world = World::with_backend(POD_A);
    let open = Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    let behind = world.sends(AT.0, AT.1, &open);
    let answer = Frame::<F>::answer(proto, &behind);
    world.sends(Hook::TC_UPLINK_OUT, UPLINK, &answer);
    let forth = open.flags(tcp::ACK);
    world.sends(AT.0, AT.1, &forth);
    let before = world.slowed.get();
    let (verdict, packet) = world.plays(AT.0, AT.1, &forth);
    assert_eq!(verdict, Verdict::TRANSLATED);
    assert_eq!(packet.bytes[..12], forth.build().bytes[..12]);
    assert_eq!(see::<F>(&packet).ttl, forth.ttl);
    assert_eq!(world.slowed.get(), before);
}

/// It stays without (RFC 768), and TCP has no such value.
fn a_checksum_of_zero_is_none_for_datagrams_alone<F: Net>() {
    for proto in [UDP, TCP] {
        let (world, forth, _) = established::<F>(proto);
        let mut packet = forth.build();
        let field = 14 + F::HEADER_LEN + if proto == TCP { 16 } else { 6 };
        packet.bytes[field..field + 2].fill(0);
        let before = world.slowed.get();
        let verdict = world.run(AT.0, AT.1, &mut packet);
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(world.slowed.get(), before);
        let is_none = packet.bytes[field..field + 2] == [0, 0];
        assert_eq!(is_none, proto == UDP);
    }
}

/// The slow path notes it, so that its answer is told from a request.
fn a_datagram_that_leaves_for_a_node_ports_number_is_slow<F: Net>() {
    let world = World::with_backend(REMOTE);
    let leaves = |proto, flags| {
        let frame = Frame::<F>::new(proto, (F::addr(NODE), 4000), (F::addr(CLIENT), NODE_PORT));
        let before = world.slowed.get();
        let verdict = world.run(Hook::TC_UPLINK_OUT, UPLINK, &mut frame.flags(flags).build());
        assert_eq!(verdict, Verdict::pass(PassReason::NotService));
        world.slowed.get() != before
    };
    assert!(leaves(UDP, 0));
    assert!(!leaves(TCP, tcp::ACK));
    assert!(leaves(TCP, tcp::SYN));
}

/// Traffic of no service: past every service address, from no backend.
fn traffic_of_no_service_is_fast<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    for (from, to) in [
        ((CLIENT, 4000), (NODE, 22)),
        ((CLIENT, 4000), (REMOTE, 22)),
        ((REMOTE, 22), (NODE, 4000)),
        ((CLIENT, BACKEND_PORT), (NODE, 4000)),
        // From a backend, but of no flow.
        ((REMOTE, BACKEND_PORT), (NODE, 4000)),
        ((REMOTE, BACKEND_PORT), (CLIENT, 4000)),
        // A NodePort's number, elsewhere.
        ((CLIENT, 4000), (POD_B, NODE_PORT)),
        ((REMOTE, 22), (CLIENT, NODE_PORT)),
    ] {
        let frame = Frame::<F>::new(proto, (F::addr(from.0), from.1), (F::addr(to.0), to.1))
            .flags(tcp::ACK);
        assert!(!is_slow(&world, &frame), "{from:?} to {to:?}");
    }
}

/// Of what has no ports, an ICMP error alone may be about a flow: whatever begins like one is none.
fn of_other_protocols_only_icmp_errors_and_sctp_are_slow<F: Net>() {
    const GRE: u8 = 47;
    let (error, echo) = if F::IS_V6 { (1, 128) } else { (3, 8) };
    let world = World::with_backend(REMOTE);
    for (proto, kind, slow) in [
        (F::ICMP_PROTO, error, true),
        (F::ICMP_PROTO, echo, false),
        (GRE, error, false),
        (SCTP, echo, true),
    ] {
        let body = [&[kind][..], &[0; 47]].concat();
        let bytes = ip_frame::<F>(&F::addr(CLIENT), &F::addr(NODE), proto, 64, &body);
        let before = world.slowed.get();
        world.run(AT.0, AT.1, &mut Buffer::new(bytes));
        assert_eq!(world.slowed.get() != before, slow, "{proto} {kind}");
    }
}

/// Who opens a connection to a backend's own address may be in the way of an old flow; who goes on with one is not.
fn only_a_segment_that_opens_a_connection_to_a_backend_is_slow<F: Net>() {
    let world = World::with_backend(REMOTE);
    let direct = |port| Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(REMOTE), port));
    assert!(is_slow(&world, &direct(BACKEND_PORT)));
    assert!(!is_slow(&world, &direct(BACKEND_PORT + 1)));
    for flags in [tcp::ACK, tcp::SYN | tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST] {
        assert!(
            !is_slow(&world, &direct(BACKEND_PORT).flags(flags)),
            "{flags:#x}"
        );
    }
}

/// Also to a NodePort's number, which is none at a backend's address.
fn a_number_of_a_node_port_hides_no_flow_in_the_way<F: Net>() {
    for hook in [Hook::XDP_UPLINK, Hook::TC_UPLINK_IN] {
        let mut world = World::with_backend(POD_A);
        world.open_gate(gate::node_port(TCP, Be16::new(BACKEND_PORT)));
        let open = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
        let direct = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(POD_A), BACKEND_PORT));
        let behind = world.sends(hook, AT.1, &open);
        let answer = Frame::<F>::answer(TCP, &behind);
        world.sends(Hook::TC_UPLINK_OUT, AT.1, &answer);
        world.sends(hook, AT.1, &open.flags(tcp::ACK));
        let end = answer.flags(tcp::RST | tcp::ACK);
        world.sends(Hook::TC_UPLINK_OUT, AT.1, &end);
        assert_eq!(F::maps(&world).confirmed_len(), 2);
        world.run(hook, AT.1, &mut direct.build());
        assert_eq!(F::maps(&world).confirmed_len(), 0, "{hook:?}");
    }
}

/// Who is behind a device without hooks is nobody's address here: TC, behind XDP, restores the answers that come to such a client.
fn an_answer_to_a_forwarded_client_is_left_to_tc<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let open = Frame::<F>::new(
        proto,
        (F::addr(CLIENT), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    let behind = world.sends(Hook::TC_UPLINK_OUT, UPLINK, &open);
    assert_eq!(behind.src, F::addr(CLIENT));
    let answer = Frame::<F>::answer(proto, &behind);
    let mut packet = answer.build();
    let came = packet.bytes.clone();
    let verdict = world.run(Hook::XDP_UPLINK, UPLINK, &mut packet);
    assert_eq!(verdict.action, Action::Pass);
    assert_eq!(packet.bytes, came);
    let restored = world.sends(Hook::TC_UPLINK_IN, UPLINK, &answer);
    assert_eq!(restored.src, F::addr(CLUSTER_IP));
}

/// The same where options keep the packet from the fast path: a flow that is over lets go for a SYN alone.
fn a_segment_with_options_straight_to_a_backend_removes_no_flow<F: Net>() {
    for (flags, left) in [(tcp::ACK, 2), (tcp::SYN | tcp::ACK, 2), (tcp::SYN, 0)] {
        let world = World::with_backend(POD_A);
        let open = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
        let behind = world.sends(AT.0, AT.1, &open);
        let answer = Frame::<F>::answer(TCP, &behind);
        world.sends(Hook::TC_UPLINK_OUT, AT.1, &answer);
        world.sends(AT.0, AT.1, &open.flags(tcp::ACK));
        let end = answer.flags(tcp::RST | tcp::ACK);
        world.sends(Hook::TC_UPLINK_OUT, AT.1, &end);
        assert_eq!(F::maps(&world).confirmed_len(), 2);

        let direct = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(POD_A), BACKEND_PORT));
        let mut packet = with_options::<F>(&direct.flags(flags));
        let verdict = world.run(AT.0, AT.1, &mut packet);
        assert_eq!(verdict.action, Action::Pass);
        assert_eq!(F::maps(&world).confirmed_len(), left, "{flags:#x}");
    }
}

/// A word of options in IPv4, a header of destination options in IPv6.
pub fn with_options<F: Net>(frame: &Frame<F>) -> Buffer {
    let mut bytes = frame.build().bytes;
    if F::IS_V6 {
        let next = bytes[20];
        bytes[20] = 60;
        bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
        let len = bytes.len() as u16 - 54;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
    } else {
        bytes[14] = 0x46;
        bytes.splice(34..34, [1; 4]);
        let len = bytes.len() as u16 - 14;
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        bytes[24..26].fill(0);
        let check = !sum(&bytes[14..38]);
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
    }
    Buffer::new(bytes)
}

macro_rules! tcp_and_udp {
    ($($name:ident)+) => {$(
        mod $name {
            use proxy_common::{abi::{TCP, UDP}, addr::{V4, V6}};
            #[test]
            fn v4_tcp() { super::$name::<V4>(TCP) }
            #[test]
            fn v4_udp() { super::$name::<V4>(UDP) }
            #[test]
            fn v6_tcp() { super::$name::<V6>(TCP) }
            #[test]
            fn v6_udp() { super::$name::<V6>(UDP) }
        }
    )+};
}
// SCTP takes the slow path alone.
tcp_and_udp! {
    data_of_an_established_flow_is_fast
    a_flow_is_touched_once_in_a_step_of_time
    hints_of_another_epoch_are_slow
    a_packet_that_may_not_leave_is_slow
    a_frame_that_the_stack_would_not_take_is_slow
    the_fast_path_writes_what_the_slow_one_does
    traffic_of_no_service_is_fast
    an_answer_to_a_forwarded_client_is_left_to_tc
}
families! {
    of_other_protocols_only_icmp_errors_and_sctp_are_slow
    a_segment_that_begins_or_ends_a_connection_is_slow
    a_datagram_to_a_backend_that_is_gone_is_slow
    a_checksum_of_zero_is_none_for_datagrams_alone
    a_datagram_that_leaves_for_a_node_ports_number_is_slow
    only_a_segment_that_opens_a_connection_to_a_backend_is_slow
    a_number_of_a_node_port_hides_no_flow_in_the_way
    a_segment_with_options_straight_to_a_backend_removes_no_flow
}
