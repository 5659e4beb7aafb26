//! ICMP errors of others, about packets of known flows: by which device they may come, from whom they seem to be, and how far
//! they go.

use crate::world::*;
use proxy_common::{
    abi::{IfIndex, Sources, TCP, UDP},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    reason::{DropReason, PassReason},
};

const IN: Hook = Hook::TC_UPLINK_IN;
/// No route leads there.
const ROUTER: u16 = 200;

/// "Too big", about this packet.
fn too_big<F: Net>(about: &Buffer) -> Buffer {
    let (kind, code) = if F::IS_V6 { (2, 0) } else { (3, 4) };
    icmp_error::<F>(&F::addr(ROUTER), kind, code, &about.bytes, 8)
}

fn opens<F: Net>(proto: u8) -> Frame<F> {
    Frame::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT))
}

/// As its device asks of any source, unless the flow's own packets come by it.
fn an_error_comes_by_its_flows_device_or_from_a_source_that_its_device_takes<F: Net>(proto: u8) {
    for (device, above, check, is_taken) in [
        (UPLINK, IfIndex(0), Sources::Strict, true),
        (VETH_A, UPLINK, Sources::Strict, true),
        (VETH_A, TUNNEL, Sources::Strict, false),
        (VETH_A, IfIndex(0), Sources::Strict, false),
        (VETH_A, IfIndex(0), Sources::All, true),
    ] {
        let mut world = World::with_backend(REMOTE);
        let (_, forth) = world.plays(IN, UPLINK, &opens::<F>(proto));
        let entry = world.devices.get_mut(&device).unwrap();
        entry.flags = entry.flags.with_sources(check);
        entry.above = above;
        let hook = if device == UPLINK {
            IN
        } else {
            Hook::TC_WORKLOAD_IN
        };
        let mut error = too_big::<F>(&forth);
        let verdict = world.run(hook, device, &mut error);
        if is_taken {
            assert!(
                !matches!(verdict.action, Action::Pass | Action::Drop),
                "{device:?} below {above:?}: {verdict:?}"
            );
            assert_eq!(see::<F>(&error).tuple.dst, F::addr(CLIENT));
        } else {
            assert_eq!(verdict, Verdict::drop(DropReason::SourceCheck));
        }
    }
}

/// Beyond a full proxy nobody sees who is behind it. It forwards the error, as it does the flow.
fn an_error_through_a_full_proxy_is_the_proxys_own_and_loses_a_hop<F: Net>(proto: u8) {
    let world = World::with_backend(REMOTE);
    let (_, forth) = world.plays(IN, UPLINK, &opens::<F>(proto));
    let mut error = too_big::<F>(&forth);
    assert_eq!(world.run(IN, UPLINK, &mut error), Verdict::TRANSMIT);
    let seen = see::<F>(&error);
    assert_eq!(seen.tuple.src, F::addr(NODE));
    assert_eq!(seen.ttl, 63);

    let mut last = too_big::<F>(&forth);
    last.bytes[if F::IS_V6 { 14 + 7 } else { 14 + 8 }] = 1;
    repair(&mut last.bytes);
    assert_eq!(
        world.run(IN, UPLINK, &mut last),
        Verdict::drop(DropReason::HopLimit)
    );
}

fn an_error_to_a_local_backend_is_the_routers_and_the_stacks_to_forward<F: Net>(proto: u8) {
    let world = World::with_backend(POD_A);
    let behind = world.sends(IN, UPLINK, &opens::<F>(proto));
    let (_, back) = world.plays(
        Hook::TC_UPLINK_OUT,
        UPLINK,
        &Frame::<F>::answer(proto, &behind),
    );
    for ttl in [64, 1] {
        let mut error = too_big::<F>(&back);
        error.bytes[if F::IS_V6 { 14 + 7 } else { 14 + 8 }] = ttl;
        repair(&mut error.bytes);
        assert_eq!(world.run(IN, UPLINK, &mut error), Verdict::TRANSLATED);
        let seen = see::<F>(&error);
        assert_eq!(seen.tuple.src, F::addr(ROUTER));
        assert_eq!(seen.tuple.dst, F::addr(POD_A));
        assert_eq!(seen.ttl, ttl);
    }
}

/// Of several segments in one packet, the largest has to fit.
fn segments_fit_if_the_largest_does<F: Net>() {
    for (proto, header) in [(TCP, 20), (UDP, 8)] {
        for (more, to) in [(0, REMOTE), (1, CLIENT)] {
            let world = World::with_backend(REMOTE);
            let mut packet = opens::<F>(proto).payload(4000).build_partial();
            packet.gso = 1500 - F::HEADER_LEN as u32 - header + more;
            assert_eq!(world.run(IN, UPLINK, &mut packet), Verdict::TRANSMIT);
            let seen = see::<F>(&packet);
            assert_eq!(seen.tuple.dst, F::addr(to), "{proto}, {more} too many");
        }
    }
}

fn xdp_leaves_errors_to_tc<F: Net>() {
    let world = World::with_backend(REMOTE);
    let (_, forth) = world.plays(Hook::XDP_UPLINK, UPLINK, &opens::<F>(TCP));
    let mut error = too_big::<F>(&forth);
    let verdict = world.run(Hook::XDP_UPLINK, UPLINK, &mut error);
    assert_eq!(verdict, Verdict::pass(PassReason::LeftToTc));
}

fn bytes_are_counted_from_the_network_header_on<F: Net>() {
    for hook in [IN, Hook::XDP_UPLINK] {
        let world = World::with_backend(REMOTE);
        let frame = opens::<F>(UDP).payload(321);
        world.sends(hook, UPLINK, &frame);
        let counted = world.backend_count(backend_id(REMOTE));
        let len = F::HEADER_LEN + 8 + 321;
        assert_eq!((counted.packets, counted.bytes), (1, len as u64));
    }
}

cases! {
    an_error_comes_by_its_flows_device_or_from_a_source_that_its_device_takes
    an_error_through_a_full_proxy_is_the_proxys_own_and_loses_a_hop
    an_error_to_a_local_backend_is_the_routers_and_the_stacks_to_forward
}
families! {
    segments_fit_if_the_largest_does
    xdp_leaves_errors_to_tc
    bytes_are_counted_from_the_network_header_on
}
