//! Tells a device's role (uplink, tunnel, a pod's interface) and the programs that belong at it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use proxy_common::abi::{DeviceKind, IfIndex};
use proxy_common::edge::hook::Hook;

use super::{Framing, Kind, View, nic};

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
pub type Roles = BTreeMap<IfIndex, Role>;

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
    /// What the programs are told.
    pub const fn kind(self) -> DeviceKind {
        match self {
            Self::Uplink => DeviceKind::Uplink,
            Self::Tunnel => DeviceKind::Tunnel,
            Self::Workload => DeviceKind::Workload,
            Self::Loopback => DeviceKind::Loopback,
            Self::Plain => DeviceKind::Plain,
        }
    }

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

/// A device's role, and what it follows from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    pub role: Role,
    pub why: String,
}

/// The role of every device of `view`.
pub fn roles(view: &View, uplinks: &Selection, workloads: &Selection) -> Roles {
    view.links
        .keys()
        .map(|&index| (index, judge(view, index, uplinks, workloads).role))
        .collect()
}

/// The role of a device, and why. One that is not there has none.
pub fn judge(view: &View, index: IfIndex, uplinks: &Selection, workloads: &Selection) -> Judged {
    let judged = |role, why: &str| Judged {
        role,
        why: why.to_owned(),
    };
    let Some(link) = view.links.get(&index) else {
        return judged(Role::Plain, "it is gone");
    };
    if link.kind == Kind::Loopback {
        return judged(Role::Loopback, "what the node sends to itself");
    }
    if link.framing == Framing::Other {
        return judged(Role::Plain, "its link headers are not Ethernet's");
    }
    let out = match link.kind {
        Kind::Tunnel => Role::Tunnel,
        _ => Role::Uplink,
    };
    let not_out = match uplinks {
        Selection::Named(names) if matches(names, &link.name) => {
            return judged(out, "named by --uplinks");
        }
        Selection::Named(_) => match nic::leads_out(view, index) {
            Ok(why) => format!("{why}, and --uplinks does not name it"),
            Err(why) => why,
        },
        Selection::Auto => match nic::leads_out(view, index) {
            Ok(why) => return judged(out, &why),
            Err(why) => why,
        },
    };
    match workloads {
        Selection::Named(names) if matches(names, &link.name) => {
            judged(Role::Workload, "named by --workloads")
        }
        Selection::Auto if nic::leads_to_pod(view, index) => {
            judged(Role::Workload, "a veth into another network namespace")
        }
        Selection::Auto | Selection::Named(_) => judged(Role::Plain, &not_out),
    }
}

/// What should be named in place of a device that is named an uplink, as the node's addresses are not there.
pub fn better_named(view: &View, index: IfIndex, uplinks: &Selection) -> Option<String> {
    let link = view.links.get(&index)?;
    match uplinks {
        Selection::Named(names) if matches(names, &link.name) => nic::instead(view, index),
        _ => None,
    }
}

/// The names that no device has.
pub fn unmatched<'a>(view: &View, selection: &'a Selection) -> Vec<&'a str> {
    let Selection::Named(names) = selection else {
        return Vec::new();
    };
    let is_there = |pattern: &Pattern| view.links.values().any(|link| pattern.matches(&link.name));
    names
        .iter()
        .filter(|pattern| !is_there(pattern))
        .map(|Pattern(text)| text.as_str())
        .collect()
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
