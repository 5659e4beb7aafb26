//! Whose frame it is: what a switch floods, what a mirror port shows, and what belongs to a VLAN is not the node's.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{Family, Mac, Pair};
use testbed::agent::{Agent, Uplink};
use testbed::cluster::{Cluster, Vip};
use testbed::patience::eventually;
use testbed::runner::CannotRun;
use testbed::sockets::Protocol;
use testbed::topology::{Host, Plan};
use testbed::wire::build::Link;
use testbed::wire::{Capture, Mirror};

use crate::inject::{Wire, fresh_port, question};
use crate::world::{World, await_answer, dial, open, serve, who};

/// Nobody's on this segment.
const STRANGER: Mac = Mac([0x02, 0, 0, 0, 0xbe, 0xef]);
const VLAN: u16 = 78;
const VLAN_DEVICE: &str = "eth0.78";
/// The nodes' and the neighbour's addresses in the VLAN.
const IN_VLAN: [Pair; 2] = [
    Pair::new([198, 51, 100, 11], [0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 11]),
    Pair::new([198, 51, 100, 200], [0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 200]),
];
/// On the nodes' segment, where the neighbour finds it by ARP or what takes its place.
const FLOATING: Pair = Pair::new([198, 18, 0, 50], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 50]);
const QUESTIONS: usize = 6;

pub fn rows(world: &World) -> Vec<Trial> {
    let mut rows = vec![
        world.row(
            "a frame for another host is neither translated, forwarded nor answered",
            for_another_host,
        ),
        world.row(
            "a client whose frames a switch shows to another node gets one answer to each question",
            shown_to_another_node,
        ),
    ];
    rows.push(world.row(
        "a frame of a VLAN that the node is not in is left alone",
        of_another_vlan,
    ));
    rows
}

/// On a cluster of their own. With XDP a tag stays in the frame, which is then no frame of IP.
pub fn rows_of_vlans(uplink: Uplink) -> Vec<Trial> {
    if uplink == Uplink::Xdp {
        return Vec::new();
    }
    let world = World::without_agents(uplink, Plan::default());
    vec![world.row("a question by a VLAN is answered by that VLAN", by_a_vlan)]
}

/// Node ports, with a backend on the node and on another one.
fn vips(cluster: &Cluster, name: &str) -> Result<[Vip; 2]> {
    Ok([
        serve(cluster, name, &[cluster.pod("p1")])?,
        serve(cluster, name, &[cluster.pod("p2")])?,
    ])
}

fn for_another_host(cluster: &Cluster) -> Result<()> {
    let destinations = [
        ("the other node's", cluster.node(2).host.mac),
        ("nobody's", STRANGER),
        ("that of all hosts", Mac::BROADCAST),
        ("a group's", Mac::MULTICAST),
    ];
    left_alone(
        cluster,
        "not-ours",
        &destinations.map(|(what, mac)| {
            move |link: Link| {
                (
                    format!("for {what} address"),
                    Link {
                        destination: mac,
                        ..link
                    },
                )
            }
        }),
    )
}

fn of_another_vlan(cluster: &Cluster) -> Result<()> {
    let tagged = |link: Link| {
        (
            "under a tag".to_owned(),
            Link {
                vlan: Some(VLAN + 1),
                ..link
            },
        )
    };
    left_alone(cluster, "not-in-vlan", &[tagged])
}

/// Sends questions over links that are no way to the node.
fn left_alone(
    cluster: &Cluster,
    name: &str,
    links: &[impl Fn(Link) -> (String, Link)],
) -> Result<()> {
    let vips = vips(cluster, name)?;
    let wire = Wire::watch(cluster)?;
    let mut sent = Vec::new();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for vip in &vips {
                for link in links {
                    let targets = [
                        vip.on_node(cluster.node(1), family),
                        vip.on_cluster_ip(family),
                    ];
                    for to in targets {
                        let (what, link) = link(wire.link());
                        let port = fresh_port();
                        let from = wire.neighbour(family, port);
                        wire.send(&question(link, protocol, from, to)?)?;
                        sent.push((port, format!("{protocol} to {to} {what}")));
                    }
                }
            }
        }
        for vip in &vips {
            wire.settle(vip, family)?;
        }
    }
    wire.ensure_sent(sent[0].0)?;
    wire.ensure_no_trace(&sent)
}

/// The neighbour asks a load balancer's address that the second node has, and the first node sees it all.
fn shown_to_another_node(cluster: &Cluster) -> Result<()> {
    let neighbour = &cluster.topology.neighbour;
    // A checksum that is left to the device would be a wrong one in the copy.
    neighbour.finish_checksums()?;
    for backend in ["p1", "p2"] {
        let vip = cluster.vip("floating").behind(FLOATING);
        let vip = cluster.publish_at(vip, &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            shown(cluster, neighbour, &vip, family)?;
        }
        // The next one has the same address.
        cluster.withdraw(&vip)?;
    }
    Ok(())
}

fn shown(cluster: &Cluster, neighbour: &Host, vip: &Vip, family: Family) -> Result<()> {
    let target = vip.on_external(family);
    let mac = cluster.node(2).host.mac;
    neighbour.netns.ip(&format!(
        "neigh replace {} lladdr {mac} dev eth0 nud permanent\n",
        target.ip()
    ))?;
    for protocol in Protocol::BOTH {
        await_answer(neighbour, protocol, target, |answer| answer.who().is_some())?;
    }
    let router = &cluster.topology.router.netns;
    let [seen, other] = [cluster.node(1).name(), cluster.node(2).name()];
    let mirror = Mirror::start(router, other, seen, target.ip())?;
    let capture = Capture::start(&neighbour.netns, "eth0")?;
    // Other rows put frames on the wire in this client's name, whose answers its stack resets, and what was asked before
    // may be answered late: only what these sockets get counts.
    let mut questions = Vec::new();
    for number in 0..QUESTIONS {
        let mut question = open(dial(neighbour, Protocol::Udp, target))?;
        who(question.ask()).map_err(|error| error.context(format!("udp {target}, {number}")))?;
        // Kept, so that none of the others gets its port.
        questions.push(question);
    }
    let mut connection = open(dial(neighbour, Protocol::Tcp, target))?;
    let port = connection.port()?;
    for number in 0..QUESTIONS {
        who(connection.ask()).map_err(|error| error.context(format!("tcp {target}, {number}")))?;
    }
    eventually("the frames, shown to the other node", || {
        let copied = mirror.copied();
        ensure!(copied > 2 * QUESTIONS, "only {copied}");
        Ok(())
    })?;
    // What was shown last has been dealt with when the other node answers.
    await_answer(
        neighbour,
        Protocol::Udp,
        vip.on_node(cluster.node(1), family),
        |answer| answer.who().is_some(),
    )?;
    who(connection.ask())?;
    let packets = capture.packets();
    let between = |own: u16| {
        packets.iter().filter(move |seen| {
            let ends = [seen.from(), seen.to()];
            ends.contains(&Some(target)) && seen.has_port(own)
        })
    };
    for question in &questions {
        let port = question.port()?;
        let answers = between(port).filter(|seen| seen.tcp.is_none() && !seen.outgoing);
        let answers = answers.count();
        ensure!(
            answers == 1,
            "{answers} answers from {target} to port {port}"
        );
    }
    let segments = || between(port).filter(|seen| seen.tcp.is_some());
    ensure!(
        segments().count() > QUESTIONS,
        "the connection was not seen"
    );
    let reset = segments().find(|seen| seen.tcp.is_some_and(|tcp| tcp.rst));
    ensure!(reset.is_none(), "a reset: {reset:?}");
    Ok(())
}

/// What the parent device shows with its tag beside it is left to the VLAN's own device, whose answers go back under
/// the tag.
fn by_a_vlan(cluster: &Cluster) -> Result<()> {
    let (neighbour, node) = (&cluster.topology.neighbour, cluster.node(1));
    let probe = format!("link add link eth0 name {VLAN_DEVICE}.probe type vlan id {VLAN}\n");
    if let Err(error) = neighbour.netns.ip(&probe)
        && error.to_string().contains("Unknown device type")
    {
        return Err(CannotRun("the kernel has no VLAN devices").into());
    }
    neighbour
        .netns
        .ip(&format!("link del {VLAN_DEVICE}.probe\n"))?;
    for (host, ip) in [&node.host, neighbour].into_iter().zip(IN_VLAN) {
        host.netns.ip(&format!(
            "link add link eth0 name {VLAN_DEVICE} type vlan id {VLAN}\n\
             addr add {}/24 dev {VLAN_DEVICE}\n\
             addr add {}/64 dev {VLAN_DEVICE} nodad\n\
             link set {VLAN_DEVICE} up\n",
            ip.v4, ip.v6
        ))?;
    }
    let uplinks = format!("eth0,{VLAN_DEVICE}");
    let agent = Agent::begin(&cluster.launch(node).with_uplinks(&uplinks))?;
    cluster.agents().push(agent);
    cluster.agents()[0].wait_until_ready()?;
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, "by-vlan", &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            let target = SocketAddr::new(IN_VLAN[0].of(family), vip.node_port);
            let capture = Capture::start(&neighbour.netns, "eth0")?;
            for protocol in Protocol::BOTH {
                await_answer(neighbour, protocol, target, |answer| answer.who().is_some())?;
            }
            let answers: Vec<_> = capture
                .packets()
                .into_iter()
                .filter(|seen| seen.from() == Some(target))
                .collect();
            ensure!(!answers.is_empty(), "no answer of {target} was seen");
            let astray = answers.iter().find(|seen| seen.vlan != Some(VLAN));
            ensure!(astray.is_none(), "not in the VLAN: {astray:?}");
        }
    }
    Ok(())
}
