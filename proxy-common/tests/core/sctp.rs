//! What is SCTP's own: its CRC32c under a sum that the device made, beside padding and in fragments.

use crate::world::*;
use proxy_common::{
    abi::SCTP,
    addr::Be16,
    edge::{hook::Hook, verdict::Verdict},
    reason::DropReason,
    wire::parse::tcp,
};

fn open<F: Net>() -> Frame<F> {
    Frame::new(SCTP, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT))
}

/// The world's backend listens on the port that the client asks for.
fn keep_port<F: Net>(world: &mut World, backend: u16) {
    world.backend_mut::<F>(backend).port = Be16::new(NODE_PORT);
}

fn a_devices_sum_of_the_packet_stays_right<F: Net>() {
    for keeps_port in [false, true] {
        let mut world = World::with_backend(POD_A);
        if keeps_port {
            keep_port::<F>(&mut world, POD_A);
        }
        let mut packet = open::<F>().build().summed();
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
        assert_eq!(verdict, Verdict::TRANSLATED);
        assert_eq!(check(&packet.bytes), Ok(()));
        // 0 and 0xffff are the same sum.
        let norm = |sum: u16| if sum == 0xffff { 0 } else { sum };
        assert_eq!(
            packet.complete.map(norm),
            Some(norm(sum(&packet.bytes[14..])))
        );
    }
}

fn ethernets_padding_is_not_summed<F: Net>() {
    let world = World::with_backend(REMOTE);
    for hook in [Hook::XDP_UPLINK, Hook::TC_UPLINK_IN] {
        let mut packet = open::<F>().flags(tcp::FIN).payload(0).build();
        let known = world.run(hook, UPLINK, &mut open::<F>().build());
        assert_eq!(known, Verdict::TRANSMIT);
        packet.bytes.extend([0x5a; 10]);
        let verdict = world.run(hook, UPLINK, &mut packet);
        assert_eq!(verdict, Verdict::TRANSMIT);
        assert_eq!(check(&packet.bytes), Ok(()));
    }
}

/// As a socket of this node sends them, with the headers alone where programs can read.
fn packets_in_one_buffer_need_no_chunk<F: Net>() {
    let world = World::with_backend(POD_B);
    let first = Frame::<F>::new(
        SCTP,
        (F::addr(POD_A), 4000),
        (F::addr(CLUSTER_IP), SERVICE_PORT),
    );
    world.sends(Hook::TC_WORKLOAD_IN, VETH_A, &first);
    let mut packet = first.flags(tcp::ACK).payload(4000).build_partial();
    packet.bytes.truncate(14 + F::HEADER_LEN + 12);
    packet.gso = 0xffff;
    let verdict = world.run(Hook::TC_WORKLOAD_IN, VETH_A, &mut packet);
    assert_eq!(verdict, Verdict::TRANSLATED);
    let seen = see::<F>(&packet);
    assert_eq!(seen.tuple, tuple::<F>((POD_A, 4000), (POD_B, BACKEND_PORT)));
    assert_eq!(seen.segment[8..12], [0; 4]);
}

/// The first fragment of a frame, cut behind `len` bytes of SCTP.
fn first_fragment<F: Net>(frame: &Frame<F>, len: usize) -> Buffer {
    let whole = frame.build().bytes;
    let (src, dst) = (&frame.tuple.src, &frame.tuple.dst);
    let segment = &whole[14 + F::HEADER_LEN..][..len];
    let bytes = if F::IS_V6 {
        let body = [&[SCTP, 0, 0, 1, 0, 0, 0, 77], segment].concat();
        ip_frame::<F>(src, dst, 44, frame.ttl, &body)
    } else {
        let mut bytes = ip_frame::<F>(src, dst, SCTP, frame.ttl, segment);
        // "More fragments" in place of "don't fragment".
        bytes[20] = 0x20;
        bytes[24..26].fill(0);
        let check = !sum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
        bytes
    };
    Buffer::new(bytes)
}

fn a_fragment_is_translated_only_where_the_ports_stay<F: Net>() {
    for keeps_port in [false, true] {
        let mut world = World::with_backend(POD_A);
        if keeps_port {
            keep_port::<F>(&mut world, POD_A);
        }
        let mut packet = first_fragment(&open::<F>().payload(100), 32);
        let verdict = world.run(Hook::TC_UPLINK_IN, UPLINK, &mut packet);
        if keeps_port {
            assert_eq!(verdict, Verdict::TRANSLATED);
            assert_eq!(check(&packet.bytes), Ok(()));
        } else {
            assert_eq!(verdict, Verdict::drop(DropReason::EditFailed));
        }
    }
}

families! {
    a_devices_sum_of_the_packet_stays_right
    ethernets_padding_is_not_summed
    packets_in_one_buffer_need_no_chunk
    a_fragment_is_translated_only_where_the_ports_stay
}
