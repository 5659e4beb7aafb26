//! Packets that say of themselves what is not so: nobody gets them, nobody answers them, and nothing is remembered of them.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::topology::Node;
use testbed::wire::build::{self, Extra, L3, Link, TTL};
use testbed::wire::{Capture, Checksums, PacketSocket, Seen};

use crate::inject::{Wire, fresh_port, question};
use crate::world::{World, dial, open, serve, who};

/// Behind the end of a packet, as Ethernet fills up short frames.
const PADDING: [u8; 24] = [0xa5; 24];

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "a packet that is cut off or damaged is neither forwarded nor answered",
            damaged,
        ),
        world.row(
            "an ICMP error that quotes less than it says keeps a right checksum",
            short_quotes,
        ),
        world.row(
            "an ICMP error that is handed on loses a hop",
            hops_of_errors,
        ),
    ]
}

/// What shows in the flow table alone.
pub fn rows_of_agents(world: &World) -> Vec<Trial> {
    vec![world.row(
        "a packet whose hops end at the node makes no flow",
        without_hops,
    )]
}

/// One damage, and whether the network layer sees it.
struct Damage {
    what: &'static str,
    of_network: bool,
    family: Option<Family>,
    protocol: Option<Protocol>,
    /// Of a frame whose transport header begins there.
    damage: fn(&mut Vec<u8>, usize),
}

const DAMAGES: [Damage; 11] = [
    Damage {
        what: "with a wrong IPv4 header sum",
        of_network: true,
        family: Some(Family::V4),
        protocol: None,
        damage: |frame, _| frame[L3 + 10] ^= 0x55,
    },
    Damage {
        what: "longer by its IPv4 header than its frame",
        of_network: true,
        family: Some(Family::V4),
        protocol: None,
        damage: |frame, _| set_ipv4_length(frame, 40),
    },
    Damage {
        what: "shorter by its IPv4 header than that header",
        of_network: true,
        family: Some(Family::V4),
        protocol: None,
        damage: |frame, _| {
            let length = (frame.len() - L3) as i16;
            set_ipv4_length(frame, 16 - length);
        },
    },
    Damage {
        what: "longer by its IPv6 header than its frame",
        of_network: true,
        family: Some(Family::V6),
        protocol: None,
        damage: |frame, _| add(frame, L3 + 4, 40),
    },
    Damage {
        what: "cut off behind its ports",
        of_network: true,
        family: None,
        protocol: None,
        damage: |frame, l4| frame.truncate(l4 + 4),
    },
    Damage {
        what: "cut off within its IP header",
        of_network: true,
        family: None,
        protocol: None,
        damage: |frame, _| frame.truncate(L3 + 16),
    },
    Damage {
        what: "longer by its UDP header than its packet",
        of_network: false,
        family: None,
        protocol: Some(Protocol::Udp),
        damage: |frame, l4| add(frame, l4 + 4, 100),
    },
    Damage {
        what: "longer by its UDP header than its packet, without a checksum",
        of_network: false,
        family: Some(Family::V4),
        protocol: Some(Protocol::Udp),
        damage: |frame, l4| {
            add(frame, l4 + 4, 100);
            frame[l4 + 6..l4 + 8].fill(0);
        },
    },
    Damage {
        what: "shorter by its UDP header than that header",
        of_network: false,
        family: None,
        protocol: Some(Protocol::Udp),
        damage: |frame, l4| frame[l4 + 4..l4 + 6].copy_from_slice(&[0, 7]),
    },
    Damage {
        what: "with TCP data that begin behind its end",
        of_network: false,
        family: None,
        protocol: Some(Protocol::Tcp),
        damage: |frame, l4| frame[l4 + 12] = 0xf0,
    },
    Damage {
        what: "with TCP data that begin within the header",
        of_network: false,
        family: None,
        protocol: Some(Protocol::Tcp),
        damage: |frame, l4| frame[l4 + 12] = 0x40,
    },
];

fn add(frame: &mut [u8], at: usize, more: i16) {
    let field = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let field = field.wrapping_add_signed(more);
    frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

fn set_ipv4_length(frame: &mut [u8], more: i16) {
    add(frame, L3 + 2, more);
    build::sum_ipv4_header(frame);
}

fn header_length(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

fn damaged(cluster: &Cluster) -> Result<()> {
    let vips = [
        serve(cluster, "damaged", &[cluster.pod("p1")])?,
        serve(cluster, "damaged", &[cluster.pod("p2")])?,
    ];
    let wire = Wire::watch(cluster)?;
    let mut sent = Vec::new();
    for family in Family::BOTH {
        for vip in &vips {
            for protocol in Protocol::BOTH {
                for damage in &DAMAGES {
                    if damage.family.is_none_or(|only| only == family)
                        && damage.protocol.is_none_or(|only| only == protocol)
                    {
                        sent.extend(send_damaged(cluster, &wire, vip, family, protocol, damage)?);
                    }
                }
            }
            wire.settle(vip, family)?;
        }
    }
    wire.ensure_no_trace(&sent)
}

fn send_damaged(
    cluster: &Cluster,
    wire: &Wire,
    vip: &Vip,
    family: Family,
    protocol: Protocol,
    damage: &Damage,
) -> Result<Vec<(u16, String)>> {
    let mut targets = vec![vip.on_node(cluster.node(1), family)];
    // What the network layer does not see, it may route on as it came.
    if damage.of_network {
        targets.push(vip.on_cluster_ip(family));
    }
    let mut sent = Vec::new();
    for to in targets {
        let port = fresh_port();
        let from = wire.neighbour(family, port);
        let mut frame = question(wire.link(), protocol, from, to)?;
        (damage.damage)(&mut frame, L3 + header_length(family));
        wire.send(&frame)?;
        sent.push((port, format!("{protocol} to {to} {}", damage.what)));
    }
    Ok(sent)
}

/// A conversation of the neighbour's by way of the first node, and how its backend sees it.
fn proxied(cluster: &Cluster, target: SocketAddr, protocol: Protocol) -> Result<(u16, SocketAddr)> {
    let port = fresh_port();
    let neighbour = &cluster.topology.neighbour;
    let mut conversation = open(dial(neighbour, protocol, target).from_port(port))?;
    who(conversation.ask())?;
    match conversation.ask() {
        Answer::Ok { client, .. } => Ok((port, client)),
        other => Err(anyhow!("{other}")),
    }
}

/// "Port unreachable".
fn unreachable(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (3, 3),
        Family::V6 => (1, 4),
    }
}

/// Puts an ICMP error of the backend about what it got on the wire between the nodes. It quotes so much of the transport header.
fn send_error(
    cluster: &Cluster,
    family: Family,
    protocol: Protocol,
    seen: SocketAddr,
    quoted: usize,
) -> Result<()> {
    let (node1, node2) = (&cluster.node(1).host, &cluster.node(2).host);
    let link = Link {
        source: node2.mac,
        destination: node1.mac,
        vlan: None,
    };
    let backend = SocketAddr::new(cluster.pod("p2").ip.of(family), PORT);
    let about = question(link, protocol, seen, backend)?;
    let (about, behind) = about[L3..].split_at(header_length(family) + quoted);
    let mut frame = build::icmp_error(link, backend.ip(), seen.ip(), unreachable(family), about)?;
    // What follows looks like the rest of the packet.
    frame.extend(behind);
    frame.extend(PADDING);
    // Behind the switch, which may cut off what is no part of a packet (kernel br_netfilter).
    PacketSocket::open(&cluster.topology.router.netns, cluster.node(1).name())?.send(&frame)
}

/// Waits for the error about the conversation, as the neighbour is to see it.
fn find_error(capture: &Capture, port: u16, target: SocketAddr) -> Result<Seen> {
    capture.find("the error at the client", |seen| {
        let about = seen.embedded();
        !seen.outgoing
            && about.is_some_and(|about| about.has_port(port) && about.to() == Some(target))
    })
}

/// The rest of a frame behind the quote is no part of it, and none of the checksum.
fn short_quotes(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "quotes", &[cluster.pod("p2")])?;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        for (protocol, lengths) in [
            (Protocol::Udp, [0, 2, 4, 6, 8]),
            (Protocol::Tcp, [0, 2, 8, 16, 18]),
        ] {
            let capture = Capture::start(&cluster.topology.neighbour.netns, "eth0")?;
            let (port, seen) = proxied(cluster, target, protocol)?;
            // Eight bytes need be there (RFC 792), so that the last one comes.
            for quoted in lengths {
                send_error(cluster, family, protocol, seen, quoted)?;
            }
            eventually("the error at the client", || {
                let errors: Vec<_> = capture
                    .packets()
                    .into_iter()
                    .filter(|seen| seen.icmp == Some(unreachable(family)) && seen.has_port(port))
                    .collect();
                let last = lengths[lengths.len() - 1];
                ensure!(
                    errors
                        .iter()
                        .any(|error| error.payload.len() == header_length(family) + last),
                    "{errors:#?}"
                );
                for error in &errors {
                    ensure!(
                        error.checksums == Checksums::Right,
                        "{protocol}: {error:#?}"
                    );
                    let about = error.embedded().and_then(|about| about.to());
                    ensure!(about == Some(target), "{protocol}: {error:#?}");
                }
                Ok(())
            })?;
            ensure!(capture.broken().is_empty(), "{:#?}", capture.broken());
        }
    }
    Ok(())
}

fn hops_of_errors(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "hops", &[cluster.pod("p2")])?;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        for protocol in Protocol::BOTH {
            let capture = Capture::start(&cluster.topology.neighbour.netns, "eth0")?;
            let (port, seen) = proxied(cluster, target, protocol)?;
            send_error(cluster, family, protocol, seen, 8)?;
            let error = find_error(&capture, port, target)
                .with_context(|| format!("{protocol} {target}"))?;
            ensure!(error.ttl == TTL - 1, "{} hops left: {error:?}", error.ttl);
        }
    }
    Ok(())
}

/// Where nothing goes on, nothing is to be remembered.
fn without_hops(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "hops", &[cluster.pod("p2")])?;
    let wire = Wire::watch(cluster)?;
    let mut ports = Vec::new();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let port = fresh_port();
            let from = wire.neighbour(family, port);
            let to = vip.on_node(cluster.node(1), family);
            let mut frame = question(wire.link(), protocol, from, to)?;
            match family {
                Family::V4 => {
                    frame[L3 + 8] = 1;
                    build::sum_ipv4_header(&mut frame);
                }
                Family::V6 => frame[L3 + 7] = 1,
            }
            wire.send(&frame)?;
            ports.push(port);
        }
        wire.settle(&vip, family)?;
    }
    ensure_no_flows(cluster.node(1), &ports)
}

fn ensure_no_flows(node: &Node, ports: &[u16]) -> Result<()> {
    let all = PinDir::new(&node.bpffs).open_maps()?.connections()?;
    let found: Vec<_> = all
        .iter()
        .filter(|flow| ports.contains(&flow.client.port()))
        .collect();
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

/// On a cluster whose way to the backend is narrow: the sender is told, and nothing else happens.
pub fn too_big(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "too-big", &[cluster.pod("p2")])?;
    let wire = Wire::watch(cluster)?;
    let mut ports = Vec::new();
    for family in Family::BOTH {
        let port = fresh_port();
        let from = wire.neighbour(family, port);
        let to = vip.on_node(cluster.node(1), family);
        let big = build::udp(wire.link(), from, to, Extra::Nothing, &[b'?'; 1430])?;
        wire.send(&big)?;
        eventually("the error about a packet that is too big", || {
            let told = wire
                .left_the_node()
                .into_iter()
                .any(|seen| seen.icmp.is_some() && seen.has_port(port));
            ensure!(told);
            Ok(())
        })?;
        ports.push(port);
    }
    ensure_no_flows(cluster.node(1), &ports)
}
