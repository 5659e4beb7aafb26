//! What the kernel's route look-up becomes: the next hop, whether its MAC is known, and the MTU.

use crate::{fast::established, world::*};
use proxy_common::{
    abi::{DeviceFlags, DeviceKind, IfIndex, Link, Macs, Route, Sources, TCP},
    edge::hook::Hook,
    reason::PassReason,
    tables::{Fib, Hop},
    way::{forward, receive, usable_by},
    wire::parse::tcp,
};

const MACS: Macs = Macs([1, 2, 3]);

fn look_up<F: Net>(route: Fib, device_mtu: u32, flags: DeviceFlags) -> Result<Hop, PassReason> {
    let mut world = World::with_backend(REMOTE);
    let device = world.devices.get_mut(&UPLINK).unwrap();
    device.mtu = device_mtu;
    device.flags = flags;
    F::maps_mut(&mut world)
        .routes
        .insert(F::addr(REMOTE), route);
    forward::<F, World>(&world, &F::addr(NODE), &F::addr(REMOTE))
}

fn a_route_gives_the_hop_and_its_mtu<F: Net>() {
    const ETHERNET: DeviceFlags =
        DeviceFlags::new(DeviceKind::Uplink, Link::Ethernet, Sources::All);
    let found = |mtu| Fib::Hop {
        ifindex: UPLINK,
        macs: MACS,
        mtu,
    };
    let unresolved = |mtu| Fib::Unresolved {
        ifindex: UPLINK,
        mtu,
    };
    let none = Macs([0; 3]);
    for (route, device_mtu, flags, macs, mtu, resolved) in [
        (found(1400), 1500, ETHERNET, MACS, 1400, true),
        // Without the route's MTU, the device's; one that a hop cannot hold is no limit.
        (found(0), 1500, ETHERNET, MACS, 1500, true),
        (found(0), 0xffff, ETHERNET, MACS, 0xffff, true),
        (found(0), 0x1_0000, ETHERNET, MACS, 0, true),
        (found(0), 0x1_0578, ETHERNET, MACS, 0, true),
        // A device without a link header needs no addresses.
        (
            found(1400),
            1500,
            DeviceFlags::of(DeviceKind::Uplink),
            none,
            1400,
            true,
        ),
        (
            unresolved(1400),
            1500,
            DeviceFlags::of(DeviceKind::Tunnel),
            none,
            1400,
            true,
        ),
        (unresolved(1400), 1500, ETHERNET, none, 1400, false),
        (unresolved(0), 1500, ETHERNET, none, 1500, false),
    ] {
        let expected = Hop {
            ifindex: UPLINK,
            macs,
            mtu,
            route: Route::Forward,
            aside: false,
            resolved,
        };
        assert_eq!(
            look_up::<F>(route, device_mtu, flags),
            Ok(expected),
            "{route:?} {device_mtu}"
        );
    }
    assert_eq!(
        look_up::<F>(Fib::None, 1500, ETHERNET),
        Err(PassReason::NoRoute)
    );
}

fn a_route_by_an_unknown_device_is_left_to_the_kernel_to_resolve<F: Net>() {
    let unknown = IfIndex(99);
    let hop = look_up::<F>(
        Fib::Hop {
            ifindex: unknown,
            macs: MACS,
            mtu: 0,
        },
        1500,
        DeviceFlags::default(),
    )
    .unwrap();
    assert_eq!((hop.ifindex, hop.mtu, hop.resolved), (unknown, 0, false));
}

fn a_packet_is_received_again_with_the_devices_own_address<F: Net>() {
    let world = World::with_backend(REMOTE);
    let hop = receive::<F, World>(&world, VETH_A).unwrap();
    let mac = world.devices[&VETH_A].mac;
    let expected = Hop {
        ifindex: VETH_A,
        macs: Macs::new(mac, mac),
        mtu: 0,
        route: Route::Receive,
        aside: false,
        resolved: true,
    };
    assert_eq!(hop, expected);
    assert_eq!(
        receive::<F, World>(&world, IfIndex(99)),
        Err(PassReason::NoDevice)
    );
}

#[test]
fn xdp_sends_by_its_own_device_to_a_known_next_hop_alone() {
    let hop = |route, ifindex, resolved| Hop {
        ifindex,
        route,
        resolved,
        ..Hop::STACK
    };
    for (route, ifindex, resolved, by_xdp) in [
        (Route::Stack, IfIndex::NONE, false, true),
        (Route::Forward, UPLINK, true, true),
        (Route::Forward, UPLINK, false, false),
        (Route::Forward, TUNNEL, true, false),
        (Route::Receive, UPLINK, true, true),
        (Route::Receive, VETH_A, true, false),
    ] {
        let hop = hop(route, ifindex, resolved);
        let expected = if by_xdp {
            Ok(hop)
        } else {
            Err(PassReason::OtherDevice)
        };
        assert_eq!(
            usable_by(hop, Hook::XDP_UPLINK.edge, UPLINK),
            expected,
            "{hop:?}"
        );
        assert_eq!(usable_by(hop, Hook::TC_UPLINK_IN.edge, UPLINK), Ok(hop));
    }
}

/// Whoever goes by hints leaves the neighbour to those who looked.
fn the_next_hop_of_each_look_up_is_noted<F: Net>() {
    let at = (Hook::TC_UPLINK_IN, UPLINK);
    let fresh = World::with_backend(REMOTE);
    let open = Frame::<F>::new(TCP, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT));
    fresh.sends(at.0, at.1, &open);
    assert_eq!(fresh.noted.get(), 1, "a new flow's");

    let (mut world, forth, _) = established::<F>(TCP);
    let notes = |world: &World, frame: &Frame<F>| {
        let before = world.noted.get();
        world.sends(at.0, at.1, frame);
        world.noted.get() - before
    };
    assert_eq!(notes(&world, &forth), 0);
    world.pass_time(world.config.unwrap().refresh);
    assert_eq!(notes(&world, &forth), 1, "at the step of time");
    let config = world.config_mut();
    config.epoch = config.epoch.next();
    assert_eq!(notes(&world, &forth), 1, "in another epoch");
    let before = world.slowed.get();
    assert_eq!(notes(&world, &forth.flags(tcp::FIN | tcp::ACK)), 0);
    assert_eq!(world.slowed.get(), before + 1, "on the slow path, by hints");
}

families! {
    the_next_hop_of_each_look_up_is_noted
    a_route_gives_the_hop_and_its_mtu
    a_route_by_an_unknown_device_is_left_to_the_kernel_to_resolve
    a_packet_is_received_again_with_the_devices_own_address
}
