//! A view -> what the programs and the plan know of the node.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use proxy_common::{
    abi::{self, Device, DeviceFlags, IfIndex, LocalAddr},
    addr::{Ip4, Ip6},
};

use super::{Framing, Link, Role, Roles, SourceCheck, View, reverse_path, source};
use crate::{
    datapath::Facts,
    model::{Cidr, Family},
    plan::NodeAddresses,
};

/// On which local addresses NodePorts are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodePortAddresses {
    /// All, that of the loopback device too.
    All,
    /// Those by which other nodes know this one.
    Primary,
    /// Those in one of these ranges.
    In(Vec<Cidr>),
}

/// What the programs know of the node.
pub fn facts(
    view: &View,
    roles: &Roles,
    node_ports: &NodePortAddresses,
    check: SourceCheck,
) -> Facts {
    let mut facts = Facts::default();
    let primary = primary(view, roles);
    for (index, link) in &view.links {
        let role = roles.get(index).copied().unwrap_or(Role::Plain);
        facts
            .devices
            .insert(*index, device(view, *index, link, role, &primary, check));
    }
    for addr in local(view) {
        let flags = if serves_node_ports(addr, node_ports, &primary) {
            LocalAddr::NODE_PORTS
        } else {
            LocalAddr::empty()
        };
        match addr {
            IpAddr::V4(addr) => {
                facts.local4.insert(addr.into(), flags);
            }
            IpAddr::V6(addr) => {
                facts.local6.insert(addr.into(), flags);
            }
        }
    }
    facts
}

/// The local addresses that serve NodePorts; `None` for all.
pub fn node_port_addresses(
    view: &View,
    roles: &Roles,
    node_ports: &NodePortAddresses,
) -> Option<Vec<IpAddr>> {
    let primary = primary(view, roles);
    let some = || {
        local(view)
            .into_iter()
            .filter(|&addr| serves_node_ports(addr, node_ports, &primary))
            .collect()
    };
    (*node_ports != NodePortAddresses::All).then(some)
}

/// What the plan knows of the node.
pub fn node_addresses(view: &View, roles: &Roles) -> NodeAddresses {
    NodeAddresses {
        local: local(view),
        primary: primary(view, roles).into_iter().collect(),
    }
}

fn local(view: &View) -> BTreeSet<IpAddr> {
    view.links
        .values()
        .flat_map(|link| link.addresses.iter().map(|address| address.addr))
        .collect()
}

/// The address of each family by which other nodes know this one: the one that it uses towards what is behind the default
/// route's device, else behind another uplink.
fn primary(view: &View, roles: &Roles) -> Vec<IpAddr> {
    let routed = view.with_default_route().map(|(index, _)| index);
    let uplinks = roles
        .iter()
        .filter(|(_, role)| **role == Role::Uplink)
        .map(|(index, _)| *index);
    let links: Vec<IfIndex> = routed.chain(uplinks).collect();
    let source = |family| {
        let mut own = links.iter();
        own.find_map(|&index| source::by_device(view, index, family))
            .or_else(|| source::on_loopback(view, family))
    };
    [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .filter_map(source)
        .collect()
}

fn device(
    view: &View,
    index: IfIndex,
    link: &Link,
    role: Role,
    primary: &[IpAddr],
    check: SourceCheck,
) -> Device {
    let facing = |family: Family| {
        let on_loopback = || match role {
            Role::Uplink | Role::Tunnel => source::on_loopback(view, family),
            _ => None,
        };
        source::by_device(view, index, family)
            .or_else(on_loopback)
            .or_else(|| {
                primary
                    .iter()
                    .copied()
                    .find(|addr| Family::of(*addr) == family)
            })
    };
    let header = match link.framing {
        Framing::Ethernet => abi::Link::Ethernet,
        Framing::None | Framing::Other => abi::Link::None,
    };
    let sources = reverse_path::sources(view, index, role, check);
    let above = view.above(index);
    Device {
        addr4: match facing(Family::Ipv4) {
            Some(IpAddr::V4(addr)) => addr.into(),
            _ => Ip4::default(),
        },
        addr6: match facing(Family::Ipv6) {
            Some(IpAddr::V6(addr)) => addr.into(),
            _ => Ip6::default(),
        },
        mtu: link.mtu,
        flags: DeviceFlags::new(role.kind(), header, sources),
        mac: link.mac,
        also: above.map_or([0; 6], |above| above.mac),
        unused: 0,
        above: above.and(link.master).unwrap_or(IfIndex::NONE),
    }
}

/// Never `::1` or a link-local address: neither can be the other end of a translated flow.
fn serves_node_ports(addr: IpAddr, node_ports: &NodePortAddresses, primary: &[IpAddr]) -> bool {
    let possible = match addr {
        IpAddr::V4(_) => true,
        IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
    };
    possible
        && match node_ports {
            NodePortAddresses::All => true,
            NodePortAddresses::Primary => primary.contains(&addr),
            NodePortAddresses::In(ranges) => ranges.iter().any(|range| range.contains(addr)),
        }
}

impl FromStr for NodePortAddresses {
    type Err = String;

    /// `all`, `primary`, or ranges separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "primary" => Ok(Self::Primary),
            ranges => ranges
                .split(',')
                .map(|range| range.parse().map_err(|error| format!("{error}")))
                .collect::<Result<_, _>>()
                .map(Self::In),
        }
    }
}
