//! Roles and facts, on views as nodes have them.

use std::net::IpAddr;

use proxy_common::{
    abi::{NODEPORT_ADDR, device_flags},
    addr::Ip4,
};

use super::*;

fn link(name: &str, kind: Kind, addresses: &[&str]) -> Link {
    Link {
        name: name.to_owned(),
        kind,
        up: true,
        ethernet: kind != Kind::Loopback,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        master: None,
        peer_elsewhere: kind == Kind::Veth,
        addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
    }
}

/// A NIC with the default route, a tunnel, a CNI bridge with a pod, a pod at a veth of its own, a spare NIC that is down.
fn node() -> View {
    let mut view = View::default();
    let mut add = |index, link: Link| view.links.insert(index, link);
    add(1, link("lo", Kind::Loopback, &["127.0.0.1", "::1"]));
    add(
        2,
        link(
            "eth0",
            Kind::Physical,
            &["192.0.2.1", "fe80::1", "2001:db8::1"],
        ),
    );
    add(3, link("vxlan.calico", Kind::Tunnel, &["10.244.1.0"]));
    add(4, link("cni0", Kind::Bridge, &["10.244.1.1"]));
    add(
        5,
        Link {
            master: Some(4),
            ..link("veth5", Kind::Veth, &[])
        },
    );
    add(6, link("cali6", Kind::Veth, &[]));
    add(
        7,
        Link {
            up: false,
            ..link("eth1", Kind::Physical, &[])
        },
    );
    view.default_routes.insert(2);
    view
}

fn auto(view: &View) -> Roles {
    roles(view, &Selection::Auto, &Selection::Auto)
}

#[test]
fn the_roles_of_an_ordinary_node_are_found() {
    let found: Vec<Role> = auto(&node()).into_values().collect();
    assert_eq!(
        found,
        [
            Role::Loopback,
            Role::Uplink,
            Role::Tunnel,
            Role::Plain,
            Role::Workload,
            Role::Workload,
            Role::Plain
        ]
    );
}

#[test]
fn a_veth_with_the_default_route_is_an_uplink_and_no_workload() {
    let mut view = node();
    view.links
        .insert(8, link("eth2", Kind::Veth, &["198.51.100.1"]));
    view.default_routes.insert(8);
    assert_eq!(auto(&view)[&8], Role::Uplink);
}

#[test]
fn of_a_bond_the_bond_is_the_uplink_and_of_a_bridge_with_a_nic_the_nic() {
    let mut view = node();
    view.links.insert(8, link("bond0", Kind::Aggregate, &[]));
    view.links.insert(
        9,
        Link {
            master: Some(8),
            ..link("eth3", Kind::Physical, &[])
        },
    );
    view.links
        .insert(10, link("br0", Kind::Bridge, &["198.51.100.1"]));
    view.links.insert(
        11,
        Link {
            master: Some(10),
            ..link("eth4", Kind::Physical, &[])
        },
    );
    view.default_routes.insert(10);
    let found = auto(&view);
    assert_eq!(found[&8], Role::Uplink);
    assert_eq!(found[&9], Role::Plain);
    assert_eq!(found[&10], Role::Plain);
    assert_eq!(found[&11], Role::Uplink);
}

#[test]
fn named_devices_replace_the_automatic_choice() {
    let view = node();
    let named = |text: &str| text.parse::<Selection>().unwrap();
    let found = roles(&view, &named("eth1,vxlan*"), &named("cali*"));
    assert_eq!(found[&2], Role::Plain);
    assert_eq!(found[&3], Role::Tunnel);
    assert_eq!(found[&5], Role::Plain);
    assert_eq!(found[&6], Role::Workload);
    assert_eq!(found[&7], Role::Uplink);
    assert!("eth0,,eth1".parse::<Selection>().is_err());
}

#[test]
fn a_device_faces_with_its_own_address_then_its_bridges_then_the_nodes() {
    let view = node();
    let facts = facts(&view, &auto(&view), &NodePortAddresses::All);
    for (index, addr) in [
        (2, [192, 0, 2, 1]),
        (3, [10, 244, 1, 0]),
        (4, [10, 244, 1, 1]),
        (5, [10, 244, 1, 1]),
        (6, [192, 0, 2, 1]),
    ] {
        assert_eq!(
            facts.devices[&index].addr4,
            Ip4::from(addr),
            "device {index}"
        );
    }
    let v6: std::net::Ipv6Addr = facts.devices[&6].addr6.into();
    assert_eq!(
        v6.to_string(),
        "2001:db8::1",
        "link-local addresses face nobody"
    );
    assert_eq!(
        facts.devices[&2].flags,
        device_flags::UPLINK | device_flags::ETHERNET
    );
}

#[test]
fn node_ports_are_served_where_they_are_asked_for() {
    let view = node();
    let served = |text: &str| {
        let node_ports = text.parse().unwrap();
        let facts = facts(&view, &auto(&view), &node_ports);
        let v4 = facts
            .local4
            .iter()
            .map(|(a, f)| (IpAddr::V4((*a).into()), *f));
        let v6 = facts
            .local6
            .iter()
            .map(|(a, f)| (IpAddr::V6((*a).into()), *f));
        let mut all: Vec<String> = v4
            .chain(v6)
            .filter(|(_, flags)| flags & NODEPORT_ADDR != 0)
            .map(|(addr, _)| addr.to_string())
            .collect();
        all.sort();
        all.join(" ")
    };
    assert_eq!(
        served("all"),
        "10.244.1.0 10.244.1.1 127.0.0.1 192.0.2.1 2001:db8::1"
    );
    assert_eq!(served("primary"), "192.0.2.1 2001:db8::1");
    assert_eq!(
        served("192.0.2.0/24,2001:db8::/32"),
        "192.0.2.1 2001:db8::1"
    );
}
