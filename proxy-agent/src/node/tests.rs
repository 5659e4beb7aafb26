//! Roles and facts, on views as nodes have them.

use std::net::IpAddr;

use proxy_common::{
    abi::{self, DeviceFlags, DeviceKind, IfIndex, LocalAddr, Sources},
    addr::Ip4,
};
use rtnetlink::packet_route::link::{LinkFlags, LinkLayerType};

use super::*;

/// A device of this kind as it comes, with addresses that are hosts' where they say so (`10.0.0.1/32`).
fn link(name: &str, kind: Kind, addresses: &[&str]) -> Link {
    Link {
        name: name.to_owned(),
        kind,
        software: None,
        up: true,
        framing: Framing::Ethernet,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        master: None,
        lower: None,
        peer_elsewhere: kind == Kind::Veth,
        addresses: addresses.iter().map(|text| address(text)).collect(),
        ways: Ways::default(),
        rp_filter: 0,
        takes_tags_off: false,
    }
}

fn address(text: &str) -> Address {
    let (addr, prefix) = text.split_once('/').unwrap_or((text, ""));
    let addr: IpAddr = addr.parse().unwrap();
    let usual = if addr.is_ipv4() { 24 } else { 64 };
    let of_the_link = match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    Address {
        addr,
        prefix: prefix.parse().unwrap_or(usual),
        global: !addr.is_loopback() && !of_the_link,
        passive: false,
    }
}

fn default_route(view: &mut View, index: u32) {
    view.links.get_mut(&IfIndex(index)).unwrap().ways.default = true;
}

/// A NIC with the default route, a tunnel, a CNI bridge with a pod, a pod at a veth of its own, a spare NIC that is down.
fn node() -> View {
    let mut view = View::default();
    let mut add = |index, link: Link| view.links.insert(IfIndex(index), link);
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
            master: Some(IfIndex(4)),
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
    default_route(&mut view, 2);
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
        .insert(IfIndex(8), link("eth2", Kind::Veth, &["198.51.100.1"]));
    default_route(&mut view, 8);
    assert_eq!(auto(&view)[&IfIndex(8)], Role::Uplink);
}

#[test]
fn a_veth_is_a_nic_by_its_subnet_or_its_next_hops_and_a_pods_by_neither() {
    let mut view = node();
    let mut add = |index, link: Link| view.links.insert(IfIndex(index), link);
    add(8, link("eth9", Kind::Veth, &["198.51.100.1/24"]));
    // What the ptp plugin gives the host's side: the gateway, as a host's address.
    add(
        9,
        link(
            "veth9",
            Kind::Veth,
            &["10.244.1.1/32", "fd00::1/128", "fe80::9"],
        ),
    );
    let mut routed = link("eth10", Kind::Veth, &["198.51.100.9/32"]);
    routed.ways.next_hop = true;
    add(10, routed);
    let within = Link {
        peer_elsewhere: false,
        ..link("cilium_host", Kind::Veth, &["10.0.0.1/24"])
    };
    add(11, within);
    // A CNI bridge's pod whose host side was given an address by somebody: the bridge takes in what comes by it.
    let port = Link {
        master: Some(IfIndex(4)),
        ..link("veth12", Kind::Veth, &["10.244.1.3/24"])
    };
    add(12, port);
    // The node's address is on a macvlan of its veth.
    add(13, link("eth13", Kind::Veth, &[]));
    let stacked = Link {
        lower: Some(IfIndex(13)),
        ..link("mac0", Kind::Stacked, &["198.51.113.1/24"])
    };
    add(14, stacked);
    let found = auto(&view);
    for (index, role) in [
        (13, Role::Plain),
        (14, Role::Uplink),
        (8, Role::Uplink),
        (9, Role::Workload),
        (10, Role::Uplink),
        (11, Role::Plain),
        (12, Role::Workload),
    ] {
        assert_eq!(
            found[&IfIndex(index)],
            role,
            "{}",
            view.links[&IfIndex(index)].name
        );
    }
    // A second NIC that is not named is not a pod's either.
    let named = "eth0".parse().unwrap();
    assert_eq!(
        roles(&view, &named, &Selection::Auto)[&IfIndex(8)],
        Role::Plain
    );
}

#[test]
fn what_has_the_nodes_addresses_is_the_uplink_and_not_what_is_below_it() {
    let mut view = node();
    let mut add = |index, link: Link| view.links.insert(IfIndex(index), link);
    let port_of = |master, link: Link| Link {
        master: Some(IfIndex(master)),
        ..link
    };
    let on = |lower, link: Link| Link {
        lower: Some(IfIndex(lower)),
        ..link
    };
    // A bond, a VLAN on it with another address.
    add(8, link("bond0", Kind::Aggregate, &["198.51.100.1"]));
    add(9, port_of(8, link("eth3", Kind::Physical, &[])));
    add(10, on(8, link("bond0.7", Kind::Stacked, &["198.51.107.1"])));
    // A bridge with a NIC and the address; one with a VLAN; one for virtual machines alone.
    add(11, link("br0", Kind::Bridge, &["198.51.101.1"]));
    add(12, port_of(11, link("eth4", Kind::Physical, &[])));
    add(13, link("br1", Kind::Bridge, &["198.51.102.1"]));
    add(14, port_of(13, on(9, link("eth3.9", Kind::Stacked, &[]))));
    add(15, link("br2", Kind::Bridge, &[]));
    add(16, port_of(15, link("eth5", Kind::Physical, &[])));
    // A NIC below a macvlan, whose own address there is none.
    add(17, link("eth6", Kind::Physical, &["fe80::6"]));
    add(18, on(17, link("mac0", Kind::Stacked, &["198.51.103.1"])));
    // A VRF leaves its NIC what comes by it.
    add(19, link("vrf0", Kind::Vrf, &[]));
    add(
        20,
        port_of(19, link("eth7", Kind::Physical, &["198.51.104.1"])),
    );
    // What is stacked on a pod's bridge leads nowhere.
    add(21, on(4, link("cni0.5", Kind::Stacked, &["10.9.9.1"])));
    let found = auto(&view);
    for (index, role) in [
        (8, Role::Uplink),
        (9, Role::Plain),
        (10, Role::Uplink),
        (11, Role::Uplink),
        (12, Role::Plain),
        (13, Role::Uplink),
        (14, Role::Plain),
        (15, Role::Plain),
        (16, Role::Plain),
        (17, Role::Plain),
        (18, Role::Uplink),
        (19, Role::Plain),
        (20, Role::Uplink),
        (21, Role::Plain),
    ] {
        let judged = judge(&view, IfIndex(index), &Selection::Auto, &Selection::Auto);
        let name = &view.links[&IfIndex(index)].name;
        assert_eq!(found[&IfIndex(index)], role, "{name}: {}", judged.why);
        assert_eq!(judged.role, role, "{name}");
    }
    let named: Selection = "eth0,eth4,eth6,eth9".parse().unwrap();
    let better = |index| better_named(&view, IfIndex(index), &named);
    assert_eq!(better(2), None);
    assert!(better(12).unwrap().contains("name br0"), "{:?}", better(12));
    assert!(
        better(17).unwrap().contains("name mac0"),
        "{:?}",
        better(17)
    );
    assert_eq!(unmatched(&view, &named), ["eth9"]);
}

#[test]
fn of_a_bridge_between_containers_the_port_with_its_mac_is_the_nic() {
    let mut view = node();
    let mut add = |index, link: Link| view.links.insert(IfIndex(index), link);
    let port = |name: &str, mac| Link {
        master: Some(IfIndex(8)),
        mac: [2, 0, 0, 0, 0, mac],
        ..link(name, Kind::Veth, &[])
    };
    let bridge = Link {
        mac: [2, 0, 0, 0, 0, 9],
        ..link("br0", Kind::Bridge, &["198.51.100.1"])
    };
    add(8, bridge);
    add(9, port("eth9", 9));
    add(10, port("veth10", 10));
    default_route(&mut view, 8);
    let found = auto(&view);
    assert_eq!(
        [found[&IfIndex(8)], found[&IfIndex(9)], found[&IfIndex(10)]],
        [Role::Uplink, Role::Plain, Role::Workload]
    );
    assert!(
        why_not_native(&view, IfIndex(9)).is_some_and(|why| why.contains("veth")),
        "what a veth sends back is not relied on"
    );
}

#[test]
fn a_device_without_its_vlans_tags_is_none_for_xdp() {
    let mut view = node();
    let vlan = |lower| Link {
        software: Some("vlan".to_owned()),
        lower: Some(IfIndex(lower)),
        ..link("eth0.7", Kind::Stacked, &["198.51.107.1"])
    };
    let taking = |name: &str, takes, master| Link {
        takes_tags_off: takes,
        master,
        ..link(name, Kind::Physical, &["192.0.2.1"])
    };
    view.links.insert(IfIndex(2), taking("eth0", true, None));
    assert_eq!(hidden_tags(&view, IfIndex(2)), None, "it has no VLAN");
    view.links.insert(IfIndex(8), vlan(2));
    let why = hidden_tags(&view, IfIndex(2)).unwrap();
    assert!(
        why.contains("eth0.7") && why.contains("ethtool -K eth0 rxvlan off"),
        "{why}"
    );
    view.links.insert(IfIndex(2), taking("eth0", false, None));
    assert_eq!(hidden_tags(&view, IfIndex(2)), None, "its tags stay");
    // What is stacked on it in another way has no tags.
    view.links.insert(IfIndex(2), taking("eth0", true, None));
    view.links.insert(
        IfIndex(8),
        Link {
            software: Some("macvlan".to_owned()),
            ..vlan(2)
        },
    );
    assert_eq!(hidden_tags(&view, IfIndex(2)), None);
    // A port of a bond, on which the VLAN is.
    view.links
        .insert(IfIndex(9), link("bond0", Kind::Aggregate, &["192.0.2.1"]));
    view.links
        .insert(IfIndex(2), taking("eth0", true, Some(IfIndex(9))));
    view.links.insert(IfIndex(8), vlan(9));
    let why = hidden_tags(&view, IfIndex(9)).unwrap();
    assert!(why.contains("ethtool -K eth0 rxvlan off"), "{why}");
}

#[test]
fn a_veth_in_a_bond_is_no_pods() {
    let mut view = node();
    let port = Link {
        master: Some(IfIndex(8)),
        ..link("eth8", Kind::Veth, &[])
    };
    view.links.insert(
        IfIndex(8),
        link("bond0", Kind::Aggregate, &["198.51.100.1"]),
    );
    view.links.insert(IfIndex(9), port);
    let found = auto(&view);
    assert_eq!(
        [found[&IfIndex(8)], found[&IfIndex(9)]],
        [Role::Uplink, Role::Plain]
    );
}

#[test]
fn of_a_port_what_has_the_address_is_named() {
    let mut view = View::default();
    let mut add = |index, link: Link| view.links.insert(IfIndex(index), link);
    let port = Link {
        master: Some(IfIndex(3)),
        ..link("eth0", Kind::Physical, &[])
    };
    add(2, port);
    add(3, link("bond0", Kind::Aggregate, &[]));
    let vlan = Link {
        lower: Some(IfIndex(3)),
        ..link("bond0.7", Kind::Stacked, &["192.0.2.1"])
    };
    add(4, vlan);
    default_route(&mut view, 4);
    let named: Selection = "eth*,bond0".parse().unwrap();
    for index in [2, 3] {
        let better = better_named(&view, IfIndex(index), &named).unwrap();
        assert!(better.contains("name bond0.7"), "{better}");
    }
}

#[test]
fn named_devices_replace_the_automatic_choice() {
    let view = node();
    let named = |text: &str| text.parse::<Selection>().unwrap();
    let found = roles(&view, &named("eth1,vxlan*"), &named("cali*"));
    assert_eq!(found[&IfIndex(2)], Role::Plain);
    assert_eq!(found[&IfIndex(3)], Role::Tunnel);
    assert_eq!(found[&IfIndex(5)], Role::Plain);
    assert_eq!(found[&IfIndex(6)], Role::Workload);
    assert_eq!(found[&IfIndex(7)], Role::Uplink);
    assert!("eth0,,eth1".parse::<Selection>().is_err());
}

#[test]
fn a_device_faces_with_its_own_address_then_its_bridges_then_the_nodes() {
    let view = node();
    let facts = facts(
        &view,
        &auto(&view),
        &NodePortAddresses::All,
        SourceCheck::Auto,
    );
    for (index, addr) in [
        (2, [192, 0, 2, 1]),
        (3, [10, 244, 1, 0]),
        (4, [10, 244, 1, 1]),
        (5, [10, 244, 1, 1]),
        (6, [192, 0, 2, 1]),
    ] {
        assert_eq!(
            facts.devices[&IfIndex(index)].addr4,
            Ip4::from(addr),
            "device {index}"
        );
    }
    let v6: std::net::Ipv6Addr = facts.devices[&IfIndex(6)].addr6.into();
    assert_eq!(
        v6.to_string(),
        "2001:db8::1",
        "link-local addresses face nobody"
    );
    assert_eq!(
        facts.devices[&IfIndex(2)].flags,
        DeviceFlags::new(DeviceKind::Uplink, abi::Link::Ethernet, Sources::All)
    );
}

#[test]
fn what_stands_before_the_network_header_is_told_by_the_devices_type() {
    use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
    let wg = || Some(InfoKind::Wireguard);
    for (layer, kind, role, is_ethernet) in [
        (LinkLayerType::Ether, None, Role::Uplink, true),
        (
            LinkLayerType::Tunnel,
            Some(InfoKind::IpIp),
            Role::Tunnel,
            false,
        ),
        (
            LinkLayerType::Sit,
            Some(InfoKind::SitTun),
            Role::Tunnel,
            false,
        ),
        (
            LinkLayerType::Ipgre,
            Some(InfoKind::GreTun),
            Role::Tunnel,
            false,
        ),
        (
            LinkLayerType::Ether,
            Some(InfoKind::GreTap),
            Role::Tunnel,
            true,
        ),
        (LinkLayerType::None, wg(), Role::Tunnel, false),
        // Neither of them says what it is for: it leads to whom its routes say.
        (
            LinkLayerType::None,
            Some(InfoKind::Tun),
            Role::Tunnel,
            false,
        ),
        (
            LinkLayerType::Ppp,
            Some(InfoKind::Other("ppp".to_owned())),
            Role::Tunnel,
            false,
        ),
        // A tap device is a machine's, which is no pod.
        (LinkLayerType::Ether, Some(InfoKind::Tun), Role::Plain, true),
        // Headers that the programs cannot read.
        (LinkLayerType::Infiniband, None, Role::Plain, false),
    ] {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = layer;
        message.header.flags = LinkFlags::Up;
        if let Some(kind) = kind.clone() {
            let infos = vec![LinkInfo::Kind(kind)];
            message.attributes.push(LinkAttribute::LinkInfo(infos));
        }
        let mut view = View::default();
        view.links.insert(IfIndex(7), Link::of(&message));
        let named = Selection::Named(vec![]);
        assert_eq!(auto(&view)[&IfIndex(7)], role, "{layer:?} {kind:?}");
        let facts = facts(
            &view,
            &roles(&view, &named, &named),
            &NodePortAddresses::All,
            SourceCheck::Auto,
        );
        let is_bare = facts.devices[&IfIndex(7)].flags.is_bare();
        assert_eq!(is_bare, !is_ethernet, "{layer:?} {kind:?}");
    }
}

#[test]
fn a_source_is_one_that_the_kernel_would_take() {
    let mut view = node();
    let eth0 = view.links.get_mut(&IfIndex(2)).unwrap();
    let passive = |text| Address {
        passive: true,
        ..address(text)
    };
    // A floating address that was added later stands first, and says that it is no source.
    eth0.addresses.insert(0, passive("2001:db8::50/128"));
    eth0.addresses.insert(0, passive("192.0.2.50"));
    let of = |view: &View, index: u32| {
        let facts = facts(
            view,
            &auto(view),
            &NodePortAddresses::All,
            SourceCheck::Auto,
        );
        let device = facts.devices[&IfIndex(index)];
        let v4: std::net::Ipv4Addr = device.addr4.into();
        let v6: std::net::Ipv6Addr = device.addr6.into();
        (v4.to_string(), v6.to_string())
    };
    let expected = ("192.0.2.1".to_owned(), "2001:db8::1".to_owned());
    assert_eq!(of(&view, 2), expected);
    // The node tells its address by BGP: it is on the loopback device, and the NIC has none.
    let lo = view.links.get_mut(&IfIndex(1)).unwrap();
    lo.addresses.push(address("203.0.113.1/32"));
    lo.addresses.push(address("2001:db8:f::1/128"));
    view.links.get_mut(&IfIndex(2)).unwrap().addresses = vec![address("fe80::1")];
    let expected = ("203.0.113.1".to_owned(), "2001:db8:f::1".to_owned());
    for index in [2, 6] {
        assert_eq!(of(&view, index), expected, "device {index}");
    }
}

#[test]
fn node_ports_are_served_where_they_are_asked_for() {
    let view = node();
    let served = |text: &str| {
        let node_ports = text.parse().unwrap();
        let facts = facts(&view, &auto(&view), &node_ports, SourceCheck::Auto);
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
            .filter(|(_, flags)| flags.contains(LocalAddr::NODE_PORTS))
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

#[test]
fn a_device_asks_of_a_source_what_its_rp_filter_says() {
    let mut view = node();
    let of = |view: &View, index: u32, check| {
        let facts = facts(view, &auto(view), &NodePortAddresses::All, check);
        facts.devices[&IfIndex(index)].flags.sources()
    };
    for (value, taken) in [(0, Sources::All), (1, Sources::Strict), (2, Sources::Loose)] {
        view.links.get_mut(&IfIndex(6)).unwrap().rp_filter = value;
        assert_eq!(of(&view, 6, SourceCheck::Auto), taken, "rp_filter={value}");
        assert_eq!(of(&view, 6, SourceCheck::Off), Sources::All);
        assert_eq!(of(&view, 6, SourceCheck::Strict), Sources::Strict);
        // To the network layer, what comes by a bridge's port comes by the bridge.
        view.links.get_mut(&IfIndex(4)).unwrap().rp_filter = value;
        assert_eq!(
            of(&view, 5, SourceCheck::Auto),
            taken,
            "the bridge's {value}"
        );
    }
    let eth0 = view.links.get_mut(&IfIndex(2)).unwrap();
    eth0.rp_filter = 1;
    assert_eq!(of(&view, 2, SourceCheck::Strict), Sources::Strict);
    view.links.get_mut(&IfIndex(2)).unwrap().ways.multipath = true;
    assert_eq!(of(&view, 2, SourceCheck::Auto), Sources::Loose);
}

#[test]
fn a_bridges_port_takes_frames_for_the_bridge() {
    let mut view = node();
    view.links.get_mut(&IfIndex(4)).unwrap().mac = [2, 0, 0, 0, 0, 4];
    let facts = facts(
        &view,
        &auto(&view),
        &NodePortAddresses::All,
        SourceCheck::Auto,
    );
    let port = facts.devices[&IfIndex(5)];
    assert_eq!((port.also, port.above), ([2, 0, 0, 0, 0, 4], IfIndex(4)));
    let nic = facts.devices[&IfIndex(2)];
    assert_eq!((nic.also, nic.above), ([0; 6], IfIndex::NONE));
}
