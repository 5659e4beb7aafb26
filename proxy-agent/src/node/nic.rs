//! Finds the devices that lead out of the node, from what the node itself tells.
//!
//! The one rule: a device leads out where the node's addresses are. Of a bridge or a bond and its ports, and of a NIC and
//! what is stacked on it, that is one, so that no packet passes a hook twice. A NIC and a pod's interface may be of one
//! kind (a node that is a container has veths for both): what tells them apart are routes, subnets and bridges.

use proxy_common::abi::IfIndex;

use super::{Framing, Kind, Link, View};

/// Why a device leads out of the node, or why not.
pub fn leads_out(view: &View, index: IfIndex) -> Result<String, String> {
    let Some(link) = view.links.get(&index) else {
        return Err("it is gone".to_owned());
    };
    if !link.up {
        return Err("it is down".to_owned());
    }
    if link.kind == Kind::Tunnel {
        return Ok(match link.framing {
            Framing::None => "what goes out is encapsulated, or has no link header".to_owned(),
            _ => "it encapsulates what goes out".to_owned(),
        });
    }
    if let Some(master) = view.above(index) {
        return Err(format!("a port of {}, which stands for it", master.name));
    }
    match link.kind {
        Kind::Physical | Kind::Aggregate => {
            let what = if link.kind == Kind::Physical {
                "a NIC"
            } else {
                "NICs together"
            };
            if is_used(link) {
                return Ok(format!("{what} with {}", uses(link)));
            }
            below(view, index, what).map_or_else(|| Ok(what.to_owned()), Err)
        }
        Kind::Stacked if !is_wire(view, index) => {
            Err("it is stacked on what does not lead out".to_owned())
        }
        Kind::Stacked if is_used(link) => Ok(format!("it has {}", uses(link))),
        Kind::Stacked => Err("it has neither an address nor a route".to_owned()),
        Kind::Bridge => {
            let port = wire_ports(view, index).next();
            match port {
                Some(port) if is_used(link) => Ok(format!(
                    "a bridge with the port {} and {}",
                    port.name,
                    uses(link)
                )),
                Some(_) => Err("a bridge that has no address of the node".to_owned()),
                None if link.ways.default => Ok("a bridge with the default route".to_owned()),
                None => Err("a bridge without a NIC".to_owned()),
            }
        }
        Kind::Veth => match nic_by(view, index, link) {
            Some(what) if is_used(link) => Ok(format!("a veth with {what}")),
            Some(what) => Err(below(view, index, "a veth").unwrap_or(what)),
            None if link.peer_elsewhere => Err("a veth into another network namespace".to_owned()),
            None => Err("a veth within this network namespace".to_owned()),
        },
        Kind::Vrf => Err("a VRF, whose ports have the addresses".to_owned()),
        Kind::Other if link.ways.default => Ok("it has the default route".to_owned()),
        Kind::Other => Err("it does not have the default route".to_owned()),
        Kind::Tunnel | Kind::Loopback => Err("it does not lead out".to_owned()),
    }
}

/// Is it the host-side interface of a pod?
pub fn leads_to_pod(view: &View, index: IfIndex) -> bool {
    let Some(link) = view.links.get(&index) else {
        return false;
    };
    link.kind == Kind::Veth
        && link.peer_elsewhere
        && nic_by(view, index, link).is_none()
        && !is_wire_port(view, link)
}

/// What has the node's addresses where this device has none: the device to attach to in its place, and why.
pub fn instead(view: &View, index: IfIndex) -> Option<String> {
    let link = view.links.get(&index)?;
    if let (Some(master), Some(at)) = (view.above(index), link.master) {
        let port = format!("{} is a port of {}", link.name, master.name);
        let upper = stacked_on(view, at).find(|upper| is_used(upper));
        let (name, why) = match upper.filter(|_| !is_used(master)) {
            Some(upper) => (
                &upper.name,
                format!("{port}, on which {} has {}", upper.name, uses(upper)),
            ),
            None if is_used(master) => {
                (&master.name, format!("{port}, which has {}", uses(master)))
            }
            None => (&master.name, port),
        };
        return Some(format!("{why}: name {name} by --uplinks in its place"));
    }
    if is_used(link) {
        return None;
    }
    let upper = stacked_on(view, index).find(|upper| is_used(upper))?;
    let name = &upper.name;
    Some(format!(
        "{} has no address, and {name} on it has {}: name {name} by --uplinks in its place",
        link.name,
        uses(upper)
    ))
}

/// A device without an address of the node, below one that has it.
fn below(view: &View, index: IfIndex, what: &str) -> Option<String> {
    let upper = stacked_on(view, index).find(|upper| is_used(upper))?;
    Some(format!(
        "{what} without an address, and {} on it has {}",
        upper.name,
        uses(upper)
    ))
}

/// Does the node itself use it?
fn is_used(link: &Link) -> bool {
    link.has_address() || link.ways.default || link.ways.next_hop
}

fn uses(link: &Link) -> String {
    if link.ways.default {
        return "the default route".to_owned();
    }
    let address = link.addresses.iter().find(|address| address.global);
    match address {
        Some(address) => format!("the address {}", address.addr),
        None => "routes to next hops".to_owned(),
    }
}

/// Does something leave the node by the device, whoever uses it?
fn is_wire(view: &View, index: IfIndex) -> bool {
    let Some(link) = view.links.get(&index) else {
        return false;
    };
    match link.kind {
        Kind::Physical | Kind::Aggregate => true,
        // What it is stacked on is in another network namespace: it is a NIC to this one.
        Kind::Stacked => link
            .lower
            .is_none_or(|lower| lower != index && is_wire(view, lower)),
        Kind::Bridge => link.ways.default || wire_ports(view, index).next().is_some(),
        Kind::Veth => nic_by(view, index, link).is_some() || is_wire_port(view, link),
        Kind::Other => link.ways.default,
        Kind::Tunnel | Kind::Vrf | Kind::Loopback => false,
    }
}

/// The ports of a bridge that lead out.
fn wire_ports(view: &View, bridge: IfIndex) -> impl Iterator<Item = &Link> {
    view.links
        .iter()
        .filter(move |(_, port)| port.master == Some(bridge))
        .filter(|(index, port)| match port.kind {
            Kind::Physical | Kind::Aggregate => true,
            Kind::Stacked => is_wire(view, **index),
            Kind::Veth => is_wire_port(view, port),
            _ => false,
        })
        .map(|(_, port)| port)
}

/// Is a veth a NIC, and not a pod's, by what it is a port of? A bond has NICs alone. Of a bridge that has the default route it is the
/// port whose MAC the bridge has.
fn is_wire_port(view: &View, port: &Link) -> bool {
    let master = view.master(port);
    port.kind == Kind::Veth
        && master.is_some_and(|master| match master.kind {
            Kind::Aggregate => true,
            Kind::Bridge => master.ways.default && master.mac == port.mac,
            _ => false,
        })
}

/// What makes a veth a NIC: a pod's has no default route, no route to a next hop and no subnet, as its address is a
/// host's; nor has what is stacked on it.
fn nic_by(view: &View, index: IfIndex, link: &Link) -> Option<String> {
    if link.ways.default {
        return Some("the default route".to_owned());
    }
    if !link.peer_elsewhere || view.above(index).is_some() {
        return None;
    }
    if link.has_subnet() {
        return link
            .addresses
            .iter()
            .find(|address| address.global && address.prefix < address.bits())
            .map(|address| format!("the subnet of {}/{}", address.addr, address.prefix));
    }
    if link.ways.next_hop {
        return Some("routes to next hops".to_owned());
    }
    // A node that is a container may have all on a VLAN or a macvlan of its veth.
    stacked_on(view, index)
        .find(|upper| upper.ways.default || upper.has_subnet())
        .map(|upper| format!("{} on it", upper.name))
}

/// What is stacked on a device.
fn stacked_on(view: &View, index: IfIndex) -> impl Iterator<Item = &Link> {
    view.links
        .values()
        .filter(move |link| link.kind == Kind::Stacked && link.lower == Some(index) && link.up)
}
