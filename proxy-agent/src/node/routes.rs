//! What the routes by a device tell of it.
//!
//! A node may have a great many routes, so that no route is kept: only what they tell, device by device.

use std::{collections::BTreeSet, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType},
};

/// What unicast routes lead by a device.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ways {
    /// A default route.
    pub default: bool,
    /// A route to a next hop.
    pub next_hop: bool,
    /// A route that has other devices, too: what comes back may come by any of them.
    pub multipath: bool,
    /// The source that the widest route asks for, and how wide that one is.
    source4: Source,
    source6: Source,
}

/// The source that a route asks for. The lower its rank, the more traffic the route is for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Source(Option<(Rank, Option<IpAddr>)>);

/// Another table than the main one, the length of the prefix, the metric.
type Rank = (bool, u8, u32);

impl Ways {
    /// The source address that the widest route by the device asks for, of the family that is IPv4's or not.
    pub fn source(&self, v4: bool) -> Option<IpAddr> {
        let Source(found) = if v4 { self.source4 } else { self.source6 };
        found.and_then(|(_, source)| source)
    }

    /// Takes in a route by the device.
    pub(super) fn add(&mut self, route: &Route) {
        let Route {
            v4,
            default,
            next_hop,
            multipath,
            rank,
            source,
            devices: _,
        } = route;
        self.default |= default;
        self.next_hop |= next_hop;
        self.multipath |= multipath;
        let Source(found) = if *v4 {
            &mut self.source4
        } else {
            &mut self.source6
        };
        if found.is_none_or(|(best, _)| *rank < best) {
            *found = Some((*rank, *source));
        }
    }
}

/// What matters of a unicast route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    v4: bool,
    pub default: bool,
    next_hop: bool,
    multipath: bool,
    rank: Rank,
    source: Option<IpAddr>,
    pub devices: BTreeSet<u32>,
}

impl Route {
    /// `None` for a route that unicast traffic of others than this node does not take, and for one within a link
    /// (IPv6 has one to fe80::/64 on each device).
    pub(super) fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.kind != RouteType::Unicast || is_of_a_link(message) {
            return None;
        }
        let mut table = u32::from(header.table);
        let mut route = Self {
            v4: header.address_family == AddressFamily::Inet,
            default: header.destination_prefix_length == 0,
            next_hop: false,
            multipath: false,
            rank: (false, header.destination_prefix_length, 0),
            source: None,
            devices: BTreeSet::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => drop(route.devices.insert(*index)),
                RouteAttribute::MultiPath(hops) => {
                    route
                        .devices
                        .extend(hops.iter().map(|hop| hop.interface_index));
                    route.next_hop |= hops.iter().any(has_next_hop);
                }
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.next_hop = true,
                RouteAttribute::PrefSource(RouteAddress::Inet(addr)) => {
                    route.source = Some((*addr).into());
                }
                RouteAttribute::PrefSource(RouteAddress::Inet6(addr)) => {
                    route.source = Some((*addr).into());
                }
                RouteAttribute::Priority(metric) => route.rank.2 = *metric,
                RouteAttribute::Table(number) => table = *number,
                _ => {}
            }
        }
        route.multipath = route.devices.len() > 1;
        route.rank.0 = table != u32::from(RouteHeader::RT_TABLE_MAIN);
        Some(route)
    }
}

/// Is it a default route that unicast traffic takes?
pub fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn is_of_a_link(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => {
            addr.is_unicast_link_local() || addr.is_multicast()
        }
        _ => false,
    })
}

fn has_next_hop(hop: &RouteNextHop) -> bool {
    hop.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
        )
    })
}
