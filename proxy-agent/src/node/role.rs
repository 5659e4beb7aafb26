//! Which device is an uplink, a tunnel, a pod's interface, and which programs belong at it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use proxy_common::hook::Hook;

use super::{Kind, Link, View};

/// What a device is to the datapath.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Leads out of the node: a NIC.
    Uplink,
    /// Leads out of the node: a tunnel.
    Tunnel,
    /// A pod's host-side interface.
    Workload,
    Loopback,
    /// Has no programs; packets may go out by it.
    Plain,
}

/// The role of each device, by its index.
pub type Roles = BTreeMap<u32, Role>;

/// Which devices a role is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection {
    Auto,
    /// Those whose names match one of these.
    Named(Vec<Pattern>),
}

/// A device name, or the beginning of one and `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Role {
    /// The programs that belong at it.
    pub const fn hooks(self) -> &'static [Hook] {
        const UPLINK: &[Hook] = &[Hook::XDP_UPLINK, Hook::TC_UPLINK_IN, Hook::TC_UPLINK_OUT];
        const TUNNEL: &[Hook] = &[Hook::TC_UPLINK_IN, Hook::TC_UPLINK_OUT];
        const WORKLOAD: &[Hook] = &[Hook::TC_WORKLOAD_IN, Hook::TC_WORKLOAD_OUT];
        const LOOPBACK: &[Hook] = &[Hook::TC_LOOPBACK_OUT];
        match self {
            Self::Uplink => UPLINK,
            Self::Tunnel => TUNNEL,
            Self::Workload => WORKLOAD,
            Self::Loopback => LOOPBACK,
            Self::Plain => &[],
        }
    }
}

/// The role of every device of `view`.
pub fn roles(view: &View, uplinks: &Selection, workloads: &Selection) -> Roles {
    view.links
        .iter()
        .map(|(&index, link)| (index, role(view, index, link, uplinks, workloads)))
        .collect()
}

fn role(view: &View, index: u32, link: &Link, uplinks: &Selection, workloads: &Selection) -> Role {
    if link.kind == Kind::Loopback {
        return Role::Loopback;
    }
    let leads_out = match uplinks {
        Selection::Auto => leads_out(view, index, link),
        Selection::Named(names) => matches(names, &link.name),
    };
    if leads_out {
        return match link.kind {
            Kind::Tunnel => Role::Tunnel,
            _ => Role::Uplink,
        };
    }
    let to_pod = match workloads {
        Selection::Auto => link.kind == Kind::Veth && link.peer_elsewhere,
        Selection::Named(names) => matches(names, &link.name),
    };
    if to_pod { Role::Workload } else { Role::Plain }
}

/// A default route's device, a tunnel, a NIC: each as long as it is up. Of a bridge that has a NIC, and of a bond, one end only, so that no packet
/// passes a hook twice: the NIC of the bridge, the bond of the NICs.
fn leads_out(view: &View, index: u32, link: &Link) -> bool {
    if !link.up {
        return false;
    }
    let part_of = |kind| {
        let master = link.master.and_then(|master| view.links.get(&master));
        master.is_some_and(|master| master.kind == kind)
    };
    match link.kind {
        Kind::Tunnel | Kind::Aggregate => true,
        Kind::Physical => !part_of(Kind::Aggregate),
        Kind::Bridge => {
            let has_nic = view.links.values().any(|port| {
                port.master == Some(index) && matches!(port.kind, Kind::Physical | Kind::Aggregate)
            });
            view.default_routes.contains(&index) && !has_nic
        }
        Kind::Veth | Kind::Other => view.default_routes.contains(&index),
        Kind::Loopback => false,
    }
}

fn matches(names: &[Pattern], name: &str) -> bool {
    names.iter().any(|pattern| pattern.matches(name))
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => self.0 == name,
        }
    }
}

impl FromStr for Selection {
    type Err = String;

    /// `auto`, or names separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let names: Vec<_> = text
            .split(',')
            .map(|name| Pattern(name.trim().to_owned()))
            .collect();
        if names.iter().any(|Pattern(name)| name.is_empty()) {
            return Err(
                "give `auto`, or device names separated by commas (`eth*` for all that begin so)"
                    .to_owned(),
            );
        }
        Ok(Self::Named(names))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink",
            Self::Tunnel => "tunnel",
            Self::Workload => "workload",
            Self::Loopback => "loopback",
            Self::Plain => "plain device",
        })
    }
}
