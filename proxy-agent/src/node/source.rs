//! The address that this node takes for a source, as the kernel would.
//!
//! In this order: what the widest route by the device asks for (its `src`), an address of the device, of its bridge or
//! VRF, and of the loopback device, where a node has its address that tells it by BGP. Never one that is for the link
//! alone, and never one that the kernel would not take: deprecated, temporary or tentative for IPv6, secondary for IPv4.

use std::net::IpAddr;

use proxy_common::abi::IfIndex;

use super::{Kind, Link, View};
use crate::model::{Family, not_routable};

/// The source towards what is behind a device: `None` where neither the device nor its routes have one.
pub fn by_device(view: &View, index: IfIndex, family: Family) -> Option<IpAddr> {
    let link = view.links.get(&index)?;
    let asked_for = link.ways.source(family);
    asked_for
        .filter(|addr| is_local(view, *addr))
        .or_else(|| own(link, family))
        .or_else(|| own(view.master(link)?, family))
}

/// The source by a device that has none: the kernel looks at the loopback device before others, as it is the first.
pub fn on_loopback(view: &View, family: Family) -> Option<IpAddr> {
    view.links
        .values()
        .filter(|link| link.kind == Kind::Loopback)
        .find_map(|link| own(link, family))
}

/// That of the subnet that the next hop is in, else the first, as `inet_select_addr` has it (net/ipv4/devinet.c).
fn own(link: &Link, family: Family) -> Option<IpAddr> {
    let gateway = link.ways.gateway(family);
    let candidates = || {
        link.addresses.iter().filter(|address| {
            address.global
                && !address.passive
                && Family::of(address.addr) == family
                && not_routable(address.addr).is_none()
        })
    };
    candidates()
        .find(|address| gateway.is_some_and(|gateway| address.subnet_has(gateway)))
        .or_else(|| candidates().next())
        .map(|address| address.addr)
}

/// A route may ask for an address that has gone since.
fn is_local(view: &View, addr: IpAddr) -> bool {
    not_routable(addr).is_none()
        && view
            .links
            .values()
            .any(|link| link.addresses.iter().any(|own| own.addr == addr))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    };

    use super::*;
    use crate::node::{Address, Framing, Ways, routes::Route};

    #[test]
    fn of_two_subnets_the_address_in_the_next_hops_is_taken() {
        let address = |last: [u8; 4]| Address {
            addr: last.into(),
            prefix: 24,
            global: true,
            passive: false,
        };
        let mut link = Link {
            name: "eth0".to_owned(),
            kind: Kind::Physical,
            software: None,
            up: true,
            framing: Framing::Ethernet,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            master: None,
            lower: None,
            peer_elsewhere: false,
            addresses: vec![address([10, 0, 0, 5]), address([203, 0, 113, 5])],
            ways: Ways::default(),
            rp_filter: 0,
            takes_tags_off: false,
        };
        assert_eq!(own(&link, Family::Ipv4), Some([10, 0, 0, 5].into()));
        let mut default = RouteMessage::default();
        default.header.address_family = AddressFamily::Inet;
        default.header.kind = RouteType::Unicast;
        let gateway = RouteAddress::Inet([203, 0, 113, 1].into());
        default.attributes = vec![RouteAttribute::Oif(2), RouteAttribute::Gateway(gateway)];
        link.ways.add(&Route::of(&default).unwrap());
        assert_eq!(own(&link, Family::Ipv4), Some([203, 0, 113, 5].into()));
        assert_eq!(own(&link, Family::Ipv6), None);
    }
}
