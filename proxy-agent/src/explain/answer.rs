//! The one line: is it reachable, and if not, why not and what to do.

use std::net::IpAddr;

use proxy_common::{abi::LocalAddr, reason::Reason};

use super::{
    Ends,
    packet::{Crafted, Shown},
    place::{self, Seen},
    tell::Facts,
};
use crate::{
    condition::{ServicePort, View},
    datapath::MapAddr as _,
    node::Way,
    plan::FrontendAt,
    state::Names,
};

/// What the line depends on.
pub struct Asked<'a> {
    pub view: &'a View,
    pub names: &'a Names,
    pub seen: &'a Seen,
    pub packet: &'a Crafted,
    pub facts: &'a Facts,
    /// Is there a program that sees the packet?
    pub is_seen: bool,
    pub reason: Reason,
    pub rewritten: Option<&'a Ends>,
    /// Where the kernel sends it then; `Some(None)` for no route.
    pub way: Option<&'a Option<Way>>,
}

/// The line.
pub fn line(asked: &Asked<'_>) -> String {
    let Asked {
        names,
        seen,
        facts,
        reason,
        ..
    } = asked;
    if !asked.is_seen {
        let why = match seen.lost.is_empty() {
            true => "none is attached there".to_owned(),
            false => seen.lost.join("; "),
        };
        return format!(
            "not served: no program sees packets at {}: {why}",
            place::name(seen.ifindex)
        );
    }
    let service = facts
        .service
        .map_or_else(|| "no service".to_owned(), |service| names.text(service));
    let advice = reason.words().advice;
    match reason {
        Reason::Translated => translated(asked, &service),
        Reason::Refused if facts.is_rest => wrong_port(asked),
        Reason::NotService if facts.is_not_served => not_served(asked),
        Reason::NotService => of_no_service(asked),
        Reason::Refused => format!(
            "not reachable: {service} has no endpoint that may be used, and the client is told so at once (refused). What to do: {advice}"
        ),
        Reason::Held => format!(
            "not reachable yet: {service} has no endpoint, and the packet is held until it has one (held). What to do: {advice}"
        ),
        Reason::NoRoute => {
            let to = facts
                .route_to
                .map_or_else(String::new, |to| format!(" to {to}"));
            format!(
                "not reachable: {service} has an endpoint, and the kernel has no route{to} (no-route). What to do: {advice}"
            )
        }
        reason => {
            let begin = match reason.is_drop() {
                true => "not reachable",
                false => "left to the stack",
            };
            format!(
                "{begin}: {service}: {} ({}). What to do: {advice}",
                reason.words().meaning.trim_end_matches('.'),
                reason.text()
            )
        }
    }
}

fn translated(asked: &Asked<'_>, service: &str) -> String {
    let Asked {
        facts,
        packet,
        rewritten,
        way,
        ..
    } = asked;
    let Some(ends) = rewritten else {
        return format!("translated, of {service}");
    };
    if facts.is_reply {
        return format!(
            "a reply of {service}: its client sees it as {} -> {}",
            ends.source, ends.destination
        );
    }
    let endpoint = ends.destination;
    let unreachable = |why: String| {
        format!("not reachable: {service} goes to its endpoint {endpoint}, and {why}")
    };
    match way {
        Some(None) => {
            return unreachable(format!(
                "this node has no route to {} (no-route). What to do: {}",
                endpoint.ip(),
                Reason::NoRoute.words().advice
            ));
        }
        Some(Some(way)) => {
            if let Some(state @ ("FAILED" | "INCOMPLETE")) = way.neighbour.as_deref() {
                let hop = way.gateway.unwrap_or(endpoint.ip());
                return unreachable(format!(
                    "its next hop {hop} on {} does not answer (neighbour {state}). What to do: look at the endpoint's \
                     node, and at the network between",
                    place::name(way.ifindex)
                ));
            }
        }
        None => {}
    }
    let source = match ends.source == packet.source {
        true => String::new(),
        false => format!(", with the source {}", ends.source),
    };
    let by = match way {
        Some(Some(way)) if !way.is_local => format!(", by {}", place::name(way.ifindex)),
        _ => String::new(),
    };
    format!("reachable: {service} at its endpoint {endpoint}{source}{by}")
}

/// What services have at an address.
fn at_address(view: &View, addr: IpAddr) -> Vec<String> {
    let frontends = |service: &ServicePort| {
        let name = service.name.text();
        let found = service.frontends.keys().filter_map(move |at| match at {
            FrontendAt::Port {
                addr: found,
                port,
                protocol,
            } if *found == addr => Some((*port, *protocol)),
            _ => None,
        });
        found
            .map(|(port, protocol)| format!("{port}/{protocol} ({name})"))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<_> = view.services.iter().flat_map(frontends).collect();
    all.sort();
    all.truncate(8);
    all
}

fn wrong_port(asked: &Asked<'_>) -> String {
    let Crafted {
        destination,
        protocol,
        ..
    } = asked.packet;
    let has = at_address(asked.view, destination.ip());
    format!(
        "not reachable: no service has port {}/{protocol} of the ClusterIP {}, and the client is told so at once (refused); it has {}",
        destination.port(),
        destination.ip(),
        listed(&has)
    )
}

fn listed(all: &[String]) -> String {
    match all {
        [] => "none".to_owned(),
        all => all.join(", "),
    }
}

/// The service of a node port.
fn of_node_port(asked: &Asked<'_>) -> Option<String> {
    let Crafted {
        destination,
        protocol: wanted,
        ..
    } = asked.packet;
    let is_it = |at: &FrontendAt| match at {
        FrontendAt::NodePort {
            family,
            port,
            protocol,
        } => {
            let is_v6 = *family == crate::model::Family::Ipv6;
            (*port, *protocol) == (destination.port(), *wanted) && is_v6 == destination.is_ipv6()
        }
        _ => false,
    };
    let mut services = asked.view.services.iter();
    let service = services.find(|service| service.frontends.keys().any(is_it))?;
    Some(service.name.text())
}

fn not_served(asked: &Asked<'_>) -> String {
    let destination = asked.packet.destination;
    let what = match of_node_port(asked) {
        Some(service) => format!("{} is a node port of {service}", destination.port()),
        None => format!("{} was a node port", destination.port()),
    };
    let served = served(asked.view, destination.is_ipv6());
    format!(
        "not reachable: {what}, and {} is an address of this node on which node ports are not served (--nodeport-addresses); they are on {}",
        destination.ip(),
        listed(&served)
    )
}

/// Addresses of this node on which node ports are served.
fn served(view: &View, is_v6: bool) -> Vec<String> {
    let mut all: Vec<IpAddr> = match is_v6 {
        false => {
            let all = view.maps.v4.local_addrs.iter().flatten();
            let all = all.filter(|(_, flags)| flags.contains(LocalAddr::NODE_PORTS));
            all.map(|(addr, _)| addr.ip()).collect()
        }
        true => {
            let all = view.maps.v6.local_addrs.iter().flatten();
            let all = all.filter(|(_, flags)| flags.contains(LocalAddr::NODE_PORTS));
            all.map(|(addr, _)| addr.ip()).collect()
        }
    };
    all.retain(|addr| !addr.is_loopback());
    all.sort_unstable();
    all.iter().map(ToString::to_string).collect()
}

fn of_no_service(asked: &Asked<'_>) -> String {
    let Crafted {
        destination,
        protocol,
        ..
    } = asked.packet;
    let begin = "of no service, and left to the stack";
    let has = at_address(asked.view, destination.ip());
    if !has.is_empty() {
        return format!(
            "not reachable: no service has port {}/{protocol} of {}, which has {}; the packet is left to the stack",
            destination.port(),
            destination.ip(),
            listed(&has)
        );
    }
    match of_node_port(asked) {
        Some(service) => format!(
            "{begin}: {} is a node port of {service}, and {} is no address of this node",
            destination.port(),
            destination.ip()
        ),
        None => format!("{begin}: this node knows no service at {destination}/{protocol}"),
    }
}

/// The kernel's way for a packet that goes on.
pub fn next_hop(way: Option<&Way>) -> String {
    let Some(way) = way else {
        return "the kernel has no route there".to_owned();
    };
    if way.is_local {
        return "it is this node's own".to_owned();
    }
    let hop = way
        .gateway
        .map_or_else(String::new, |gateway| format!(" by {gateway}"));
    let neighbour = way.neighbour.as_deref().unwrap_or("not in use yet");
    format!("{}{hop} (neighbour {neighbour})", place::name(way.ifindex))
}

/// What the sender is told.
pub fn reply(packet: &[u8]) -> String {
    match Shown::of(packet) {
        Ok(Shown::Transport { is_reset: true, .. }) => "a reset".to_owned(),
        Ok(Shown::Icmp { kind, code, .. }) => format!("an ICMP error, type {kind}, code {code}"),
        _ => "none that could be made".to_owned(),
    }
}
