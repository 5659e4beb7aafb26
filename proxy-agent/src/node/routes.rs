//! Judges a device by the routes that use it.
//!
//! A node may have a great many routes, so that no route is kept: only what they tell, device by device.

use std::{collections::BTreeSet, net::IpAddr};

use proxy_common::abi::IfIndex;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType},
};

use crate::model::Family;

/// What unicast routes lead by a device.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ways {
    /// A default route.
    pub default: bool,
    /// A route to a next hop.
    pub next_hop: bool,
    /// A route that has other devices, too: what comes back may come by any of them.
    pub multipath: bool,
    /// The widest route of each family, IPv4 first.
    widest: [Option<Widest>; 2],
}

/// What the source of most traffic by a device follows from. The lower its rank, the more traffic a route is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Widest {
    rank: Rank,
    source: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

/// Another table than the main one, the length of the prefix, the metric.
type Rank = (bool, u8, u32);

impl Ways {
    /// The source address that the widest route by the device asks for, of this family.
    pub fn source(&self, family: Family) -> Option<IpAddr> {
        self.widest[family as usize]?.source
    }

    /// The next hop of that route.
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        self.widest[family as usize]?.gateway
    }

    /// Takes in a route by the device.
    pub(super) fn add(&mut self, route: &Route) {
        let Route {
            family,
            default,
            next_hop,
            multipath,
            rank,
            source,
            gateway,
            devices: _,
        } = *route;
        self.default |= default;
        self.next_hop |= next_hop;
        self.multipath |= multipath;
        let widest = &mut self.widest[family as usize];
        if widest.is_none_or(|best| rank < best.rank) {
            *widest = Some(Widest {
                rank,
                source,
                gateway,
            });
        }
    }
}

/// What matters of a unicast route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    family: Family,
    pub default: bool,
    next_hop: bool,
    multipath: bool,
    rank: Rank,
    source: Option<IpAddr>,
    gateway: Option<IpAddr>,
    pub devices: BTreeSet<IfIndex>,
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
            family: if header.address_family == AddressFamily::Inet {
                Family::Ipv4
            } else {
                Family::Ipv6
            },
            default: header.destination_prefix_length == 0,
            next_hop: false,
            multipath: false,
            rank: (false, header.destination_prefix_length, 0),
            source: None,
            gateway: None,
            devices: BTreeSet::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => drop(route.devices.insert(IfIndex(*index))),
                RouteAttribute::MultiPath(hops) => {
                    let devices = hops.iter().map(|hop| IfIndex(hop.interface_index));
                    route.devices.extend(devices);
                    route.next_hop |= hops.iter().any(has_next_hop);
                }
                RouteAttribute::Gateway(addr) => {
                    route.next_hop = true;
                    route.gateway = ip(addr);
                }
                RouteAttribute::Via(_) => route.next_hop = true,
                RouteAttribute::PrefSource(addr) => route.source = ip(addr),
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

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn has_next_hop(hop: &RouteNextHop) -> bool {
    hop.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn route(prefix: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = attributes;
        message
    }

    #[test]
    fn the_widest_route_of_the_main_table_tells_the_source() {
        let addr = |last| RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, last));
        let by = |device| RouteAttribute::Oif(device);
        let from = |last| RouteAttribute::PrefSource(addr(last));
        let mut ways = Ways::default();
        let mut add = |message: RouteMessage| ways.add(&Route::of(&message).unwrap());
        add(route(24, vec![by(2), from(1)]));
        let mut other_table = route(0, vec![by(2), from(2)]);
        other_table.header.table = 2;
        add(other_table);
        add(route(
            0,
            vec![by(2), from(4), RouteAttribute::Priority(100)],
        ));
        let gateway = RouteAttribute::Gateway(addr(9));
        add(route(
            0,
            vec![
                by(2),
                from(3),
                gateway.clone(),
                RouteAttribute::Priority(50),
            ],
        ));
        assert!(ways.default && ways.next_hop && !ways.multipath);
        assert_eq!(ways.source(Family::Ipv4), Some([192, 0, 2, 3].into()));
        assert_eq!(ways.gateway(Family::Ipv4), Some([192, 0, 2, 9].into()));
        assert_eq!(
            (ways.source(Family::Ipv6), ways.gateway(Family::Ipv6)),
            (None, None)
        );

        let mut unreachable = route(0, vec![by(2)]);
        unreachable.header.kind = RouteType::Unreachable;
        assert_eq!(Route::of(&unreachable), None);
        let hops = [2, 3].map(|interface_index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop.attributes = vec![gateway.clone()];
            hop
        });
        let multipath = Route::of(&route(0, vec![RouteAttribute::MultiPath(hops.into())])).unwrap();
        assert!(multipath.multipath && multipath.next_hop);
        assert_eq!(multipath.devices, BTreeSet::from([IfIndex(2), IfIndex(3)]));
    }
}
