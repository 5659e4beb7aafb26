//! `proxy-agent describe service`: one Service as this node has it, and why it is not reachable, if so.

use anyhow::{Result, bail};
use proxy_common::abi::{BackendFlags, FrontendKind, ServiceFlags};
use serde::Serialize;

use super::{
    output::{Format, print},
    table::Table,
};
use crate::{
    condition::{Agent, ServicePort, View, place_of, state_of},
    notices::{Notice, ToldOf},
    plan,
    serve::Unserved,
    state::{self, Place},
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    what: What,
    /// Its name, as NAMESPACE/NAME or as NAME
    #[arg(value_name = "NAMESPACE/NAME")]
    name: String,
    /// Namespace of a NAME
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum What {
    #[value(alias = "svc", alias = "services")]
    Service,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    /// What keeps clients from it; nothing where it is served as its object says.
    problems: Vec<String>,
    ports: Vec<Port>,
    notices: Vec<Notice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<Unserved>,
}

/// A service port of one family.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    family: String,
    frontends: Vec<Frontend>,
    /// Endpoints that new connections may use, by where these come from.
    to_cluster_ip: u32,
    to_external: u32,
    from_this_node_to_external: u32,
    /// Seconds; nothing without affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip_affinity: Option<u32>,
    /// By what a new connection gets its endpoint.
    load_balancing: &'static str,
    /// How long the list is that a hash chooses from, for the ClusterIP.
    slots: u32,
    /// Those that may reach its load balancer's addresses; nothing where all may.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ranges: Option<Vec<String>>,
    connections: u64,
    refused_packets: u64,
    dropped_packets: u64,
    held_packets: u64,
    /// Seconds for which first packets of a client wait while there is no endpoint; nothing where they are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<u32>,
    endpoints: Vec<Endpoint>,
    #[serde(skip)]
    drops: Drops,
}

#[derive(Debug, Serialize)]
struct Frontend {
    at: String,
    kind: &'static str,
    #[serde(skip)]
    is_external: bool,
}

/// For which traffic an empty list of endpoints drops: endpoints are there, and none is on this node.
#[derive(Clone, Copy, Default, Debug)]
struct Drops {
    internal: bool,
    external: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    address: String,
    state: &'static str,
    r#where: &'static str,
    connections: u64,
    packets: u64,
    reply_packets: u64,
}

pub fn describe(args: &Args) -> Result<()> {
    let Args {
        what: What::Service,
        name,
        namespace,
        output,
        place,
    } = args;
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    let view = View::read(place, Some(namespace))?;
    let left_out: Vec<Unserved> = state::read(&place.left_out())?;
    let left_out = left_out
        .into_iter()
        .find(|one| one.namespace == namespace && one.service == name);
    let told = view.told.iter().find(|one| one.name == name);
    let ports = view
        .services
        .iter()
        .filter(|service| service.name.service == name)
        .map(|service| port(&view, service))
        .collect::<Result<Vec<_>>>()?;
    let (agent, _) = Agent::look(place)?;
    if ports.is_empty() && told.is_none() && left_out.is_none() {
        let follows = agent
            .trouble
            .map_or_else(String::new, |why| format!(" ({why})"));
        bail!(
            "this node knows no Service {namespace}/{name}: is there one, and has it a ClusterIP and no label \
             service.kubernetes.io/service-proxy-name?{follows}"
        );
    }
    let description = Description {
        api_version: "portside/v1",
        kind: "ServiceDescription",
        problems: problems(&agent, &ports, told, left_out.as_ref()),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ports,
        notices: told.map(|told| told.notices.clone()).unwrap_or_default(),
        left_out,
    };
    print(&match output {
        None | Some(Format::Wide) => text(&description),
        Some(Format::Json) => serde_json::to_string_pretty(&description)? + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(&description)?,
    })?;
    Ok(())
}

fn port(view: &View, service: &ServicePort) -> Result<Port> {
    let value = service.value;
    let count = view.maps.service_count(service.id)?;
    let is_v6 = service
        .frontends
        .keys()
        .map(|at| at.family().to_string())
        .chain(
            service
                .backends
                .iter()
                .map(|(_, entry)| match entry.socket.is_ipv6() {
                    true => "IPv6".to_owned(),
                    false => "IPv4".to_owned(),
                }),
        )
        .next();
    // A list may have an endpoint many times.
    let usable = |scope: BackendFlags| {
        let all = service.backends.iter();
        all.filter(|(_, entry)| entry.flags.contains(scope)).count() as u32
    };
    let has = |flag| value.flags.contains(flag);
    let endpoints = service.backends.iter().map(|(id, entry)| {
        let count = view.maps.backend_count(*id)?;
        Ok(Endpoint {
            address: entry.socket.to_string(),
            state: state_of(entry.flags),
            r#where: place_of(entry.flags),
            connections: count.connections,
            packets: count.packets,
            reply_packets: count.reply_packets,
        })
    });
    Ok(Port {
        name: service.name.port.clone(),
        family: is_v6.unwrap_or_default(),
        frontends: service
            .frontends
            .iter()
            .map(|(at, kind)| Frontend {
                at: at.to_string(),
                kind: match kind {
                    FrontendKind::ClusterIp => "ClusterIP",
                    FrontendKind::NodePort => "NodePort",
                    FrontendKind::ExternalIp => "external IP",
                    FrontendKind::LoadBalancer => "load balancer",
                    FrontendKind::Refuse => "refused",
                },
                is_external: *kind != FrontendKind::ClusterIp,
            })
            .collect(),
        to_cluster_ip: usable(BackendFlags::IN_INTERNAL),
        to_external: usable(BackendFlags::IN_EXTERNAL),
        from_this_node_to_external: usable(BackendFlags::IN_SHORT_CIRCUIT),
        client_ip_affinity: (value.affinity != 0).then(|| value.affinity / view.hz.max(1)),
        load_balancing: plan::balancing(value.flags).text(),
        slots: value.internal.len,
        source_ranges: has(ServiceFlags::SOURCE_RANGES)
            .then(|| service.ranges.iter().map(ToString::to_string).collect()),
        connections: count.connections,
        refused_packets: count.refused,
        dropped_packets: count.dropped,
        held_packets: view.maps.service_held(service.id)?,
        holds: value.patience().map(|jiffies| jiffies / view.hz.max(1)),
        endpoints: endpoints.collect::<Result<_>>()?,
        drops: Drops {
            internal: has(ServiceFlags::INTERNAL_DROP),
            external: has(ServiceFlags::EXTERNAL_DROP),
        },
    })
}

fn problems(
    agent: &Agent,
    ports: &[Port],
    told: Option<&ToldOf>,
    left_out: Option<&Unserved>,
) -> Vec<String> {
    let mut problems: Vec<_> = agent.trouble.iter().cloned().collect();
    problems.extend(
        left_out.map(|one| format!("there is no room for all of it: {one}: {}", one.reason)),
    );
    for notice in told.iter().flat_map(|told| &told.notices) {
        problems.push(format!("{}: {}", notice.reason.text(), notice.message));
    }
    if ports.is_empty() {
        problems.push(
            "nothing of it is programmed: it has no address that this node may serve".to_owned(),
        );
    }
    problems.extend(ports.iter().flat_map(Port::problems));
    problems
}

impl Port {
    fn title(&self) -> String {
        match self.name.as_str() {
            "" => format!("port ({})", self.family),
            name => format!("port {name} ({})", self.family),
        }
    }

    fn problems(&self) -> Vec<String> {
        let title = self.title();
        let draining = self.endpoints.len();
        let mut all = Vec::new();
        if self.to_cluster_ip == 0 && self.drops.internal {
            all.push(format!(
                "{title}: internalTrafficPolicy is Local and no endpoint is on this node: packets to its ClusterIP are dropped"
            ));
        } else if self.to_cluster_ip == 0 {
            all.push(match draining {
                _ if self.holds.is_some() => format!(
                    "{title}: it has no endpoint: new connections wait for one, {} s each client, and are refused then",
                    self.holds.unwrap_or_default()
                ),
                0 => format!("{title}: it has no endpoint: new connections are refused"),
                some => format!(
                    "{title}: none of its {some} endpoints takes new connections: they are refused"
                ),
            });
        }
        let is_external = self.frontends.iter().any(|one| one.is_external);
        if is_external && self.to_external == 0 && self.drops.external {
            all.push(format!(
                "{title}: externalTrafficPolicy is Local and no endpoint is on this node: packets from outside are dropped"
            ));
        }
        if let Some(ranges) = &self.source_ranges
            && ranges.is_empty()
        {
            all.push(format!(
                "{title}: none of its loadBalancerSourceRanges is of this family: nobody reaches its load balancer's addresses"
            ));
        }
        all
    }
}

fn text(description: &Description) -> String {
    let Description {
        namespace,
        name,
        problems,
        ports,
        ..
    } = description;
    let mut text = format!("Service {namespace}/{name}\n");
    if problems.is_empty() {
        text += "It is served as its object says.\n";
    }
    for problem in problems {
        text += &format!("  {problem}\n");
    }
    for port in ports {
        text += &format!("\n{}\n", port.title());
        let mut table = Table::without_header();
        let mut line = |what: &str, value: String| {
            table.row(vec![format!("  {what}"), value]);
        };
        for frontend in &port.frontends {
            line("address", format!("{} ({})", frontend.at, frontend.kind));
        }
        line(
            "endpoints",
            format!(
                "{} for the ClusterIP, {} for clients outside, {} for this node's to outside addresses",
                port.to_cluster_ip, port.to_external, port.from_this_node_to_external
            ),
        );
        line(
            "balancing",
            format!("{}, from {} slots", port.load_balancing, port.slots),
        );
        line(
            "affinity",
            port.client_ip_affinity.map_or_else(
                || "none".to_owned(),
                |seconds| format!("ClientIP for {seconds} s"),
            ),
        );
        line(
            "source ranges",
            match &port.source_ranges {
                None => "all may".to_owned(),
                Some(ranges) => ranges.join(", "),
            },
        );
        line(
            "counted",
            format!(
                "{} connections, {} packets refused, {} dropped, {} held",
                port.connections, port.refused_packets, port.dropped_packets, port.held_packets
            ),
        );
        text += &table.text();
        if !port.endpoints.is_empty() {
            let mut table = Table::new(&[
                "  ENDPOINT",
                "STATE",
                "WHERE",
                "CONNECTIONS",
                "PACKETS",
                "REPLIES",
            ]);
            for one in &port.endpoints {
                table.row(vec![
                    format!("  {}", one.address),
                    one.state.to_owned(),
                    one.r#where.to_owned(),
                    one.connections.to_string(),
                    one.packets.to_string(),
                    one.reply_packets.to_string(),
                ]);
            }
            text += &table.text();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(internal: u32, drops: Drops, draining: usize) -> Port {
        let endpoint = || Endpoint {
            address: "10.0.0.1:80".to_owned(),
            state: "draining",
            r#where: "local",
            connections: 0,
            packets: 0,
            reply_packets: 0,
        };
        Port {
            name: "http".to_owned(),
            family: "IPv4".to_owned(),
            frontends: vec![Frontend {
                at: "10.96.0.1:80/TCP".to_owned(),
                kind: "NodePort",
                is_external: true,
            }],
            to_cluster_ip: internal,
            to_external: 0,
            from_this_node_to_external: 0,
            client_ip_affinity: None,
            load_balancing: "random",
            slots: internal,
            source_ranges: None,
            connections: 0,
            refused_packets: 0,
            dropped_packets: 0,
            held_packets: 0,
            holds: None,
            endpoints: (0..draining).map(|_| endpoint()).collect(),
            drops,
        }
    }

    #[test]
    fn what_keeps_clients_from_a_port_is_one_line() {
        let drops = |internal, external| Drops { internal, external };
        for (port, says) in [
            (port(1, drops(false, false), 0), &[][..]),
            (
                port(0, drops(false, false), 0),
                &["it has no endpoint: new connections are refused"],
            ),
            (
                port(0, drops(false, false), 2),
                &["none of its 2 endpoints takes new connections"],
            ),
            (
                port(0, drops(true, false), 0),
                &["internalTrafficPolicy is Local"],
            ),
            (
                port(2, drops(false, true), 0),
                &["externalTrafficPolicy is Local"],
            ),
        ] {
            let problems = port.problems();
            assert_eq!(problems.len(), says.len(), "{problems:?}");
            for (problem, says) in problems.iter().zip(says) {
                assert!(
                    problem.starts_with(&format!("port http (IPv4): {says}")),
                    "{problem}"
                );
            }
        }
        let held = Port {
            holds: Some(60),
            ..port(0, drops(false, false), 0)
        };
        assert!(held.problems()[0].contains("new connections wait for one, 60 s each client"));
        let ranges = Port {
            source_ranges: Some(Vec::new()),
            ..port(1, drops(false, false), 0)
        };
        assert!(ranges.problems()[0].contains("loadBalancerSourceRanges"));
    }
}
