//! The address that this node takes for a source, as the kernel would.
//!
//! In this order: what the widest route by the device asks for (its `src`), an address of the device, of its bridge or
//! VRF, and of the loopback device, where a node has its address that tells it by BGP. Never one that is for the link
//! alone, and never one that the kernel would not take: deprecated, temporary or tentative for IPv6, secondary for IPv4.

use std::net::IpAddr;

use super::{Kind, Link, View};
use crate::model::not_routable;

/// The source towards what is behind a device: `None` where neither the device nor its routes have one.
pub fn by_device(view: &View, index: u32, v4: bool) -> Option<IpAddr> {
    let link = view.links.get(&index)?;
    let asked_for = link.ways.source(v4);
    asked_for
        .filter(|addr| is_local(view, *addr))
        .or_else(|| own(link, v4))
        .or_else(|| own(view.master(link)?, v4))
}

/// The source by a device that has none: the kernel looks at the loopback device before others, as it is the first.
pub fn on_loopback(view: &View, v4: bool) -> Option<IpAddr> {
    view.links
        .values()
        .filter(|link| link.kind == Kind::Loopback)
        .find_map(|link| own(link, v4))
}

fn own(link: &Link, v4: bool) -> Option<IpAddr> {
    link.addresses
        .iter()
        .filter(|address| address.global && !address.passive)
        .map(|address| address.addr)
        .find(|addr| addr.is_ipv4() == v4 && not_routable(*addr).is_none())
}

/// A route may ask for an address that has gone since.
fn is_local(view: &View, addr: IpAddr) -> bool {
    not_routable(addr).is_none()
        && view
            .links
            .values()
            .any(|link| link.addresses.iter().any(|own| own.addr == addr))
}
