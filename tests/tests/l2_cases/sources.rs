//! Sources and destinations that the kernel's stack would refuse: they are nobody's, and nobody answers them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{Family, Mac};
use testbed::agent::{Agent, Uplink};
use testbed::answer::Answer;
use testbed::cluster::{Cluster, SERVICE_PORT, Vip};
use testbed::sockets::Protocol;
use testbed::topology::Plan;
use testbed::wire::PacketSocket;
use testbed::wire::build::{self, Extra, Link};

use crate::inject::{Wire, fresh_port, from_pod, question};
use crate::world::{World, await_answer, await_everywhere, dial, serve};

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "a source that no host may have gets no answer",
            forbidden_sources,
        ),
        world.row(
            "the unspecified address serves nobody, and a loopback address no neighbour and no pod",
            forbidden_destinations,
        ),
    ]
}

/// What is demanded beyond what rules of kube-proxy do.
pub fn rows_of_agents(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "a service without endpoints answers no source that no host may have",
            unanswered,
        ),
        world.row(
            "nobody is served at the unspecified IPv6 address",
            to_nobody,
        ),
        world.row(
            "no answer goes to an Ethernet address of a group",
            from_a_group,
        ),
        world.row(
            "an ICMP error is about a first fragment and no later one",
            about_fragments,
        ),
    ]
}

/// With an agent of its own.
pub fn rows_of_loopback(uplink: Uplink) -> Vec<Trial> {
    let world = World::without_agents(uplink, Plan::default());
    vec![world.row_beside_xdp(
        "node ports on loopback addresses alone are the node's alone",
        on_loopback_alone,
    )]
}

/// Those that the kernel refuses. It takes the rest of 0.0.0.0/8 (since 5.3, 96125bf9985a) and class E, and over IPv6 `::` and
/// its own addresses: nothing looks at a source there on the way in (net/ipv6/ip6_input.c).
fn sources(cluster: &Cluster, family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => {
            let mut all: Vec<IpAddr> = [
                [0, 0, 0, 0],
                [127, 0, 0, 1],
                [127, 8, 8, 8],
                [224, 0, 0, 1],
                [239, 1, 1, 1],
                [255, 255, 255, 255],
            ]
            .map(|octets| Ipv4Addr::from(octets).into())
            .into();
            let node = cluster.node(1);
            all.push(node.host.ip.v4.into());
            all.push(testbed::address::pod_gateway(node.number).v4.into());
            all
        }
        Family::V6 => [
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2),
        ]
        .map(IpAddr::from)
        .into(),
    }
}

fn forbidden_sources(cluster: &Cluster) -> Result<()> {
    let vips = [
        serve(cluster, "sources", &[cluster.pod("p1")])?,
        serve(cluster, "sources", &[cluster.pod("p2")])?,
    ];
    let wire = Wire::watch(cluster)?;
    let mut sent = Vec::new();
    for family in Family::BOTH {
        for source in sources(cluster, family) {
            sent.extend(ask_all(cluster, &wire, family, source, &vips)?);
        }
        for vip in &vips {
            wire.settle(vip, family)?;
        }
    }
    wire.ensure_sent(sent[0].0)?;
    wire.ensure_no_trace(&sent)
}

/// A service without endpoints would answer by RST and ICMP errors.
fn unanswered(cluster: &Cluster) -> Result<()> {
    let served = serve(cluster, "sources", &[cluster.pod("p1")])?;
    let empty = without_endpoints(cluster, "sources")?;
    let wire = Wire::watch(cluster)?;
    let (mut sent, mut from_nobody) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        let vips = std::slice::from_ref(&empty);
        let mut sources = sources(cluster, family);
        sources.push(cluster.node(1).host.ip.of(family));
        for source in sources {
            sent.extend(ask_all(cluster, &wire, family, source, vips)?);
        }
        wire.settle(&served, family)?;
    }
    // The kernel takes it, routes it on, and refuses it itself where nobody listens.
    for protocol in Protocol::BOTH {
        let port = fresh_port();
        let from = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let to = empty.on_cluster_ip(Family::V6);
        wire.send(&question(wire.link(), protocol, from, to)?)?;
        from_nobody.push((port, from, format!("{protocol} from {from} to {to}")));
    }
    wire.settle(&served, Family::V6)?;
    wire.ensure_sent(sent[0].0)?;
    wire.ensure_no_trace(&sent)?;
    for (port, from, what) in from_nobody {
        let mut packets = wire.left_the_node().into_iter();
        let answer = packets.find(|seen| seen.has_port(port) && seen.destination == from.ip());
        ensure!(answer.is_none(), "{what}: {answer:?}");
    }
    Ok(())
}

/// Asks the node port and the cluster address of each by both protocols, from this source and a port for each.
fn ask_all(
    cluster: &Cluster,
    wire: &Wire,
    family: Family,
    source: IpAddr,
    vips: &[Vip],
) -> Result<Vec<(u16, String)>> {
    let mut sent = Vec::new();
    for vip in vips {
        for protocol in Protocol::BOTH {
            let targets = [
                vip.on_node(cluster.node(1), family),
                vip.on_cluster_ip(family),
            ];
            for to in targets {
                let port = fresh_port();
                let from = SocketAddr::new(source, port);
                wire.send(&question(wire.link(), protocol, from, to)?)?;
                sent.push((port, format!("{protocol} from {from} to {to}")));
            }
        }
    }
    Ok(sent)
}

/// A service that refuses already.
fn without_endpoints(cluster: &Cluster, name: &str) -> Result<Vip> {
    let vip = cluster.publish(name, &[])?;
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)?;
    // A node port that nobody has heard of is refused, too; this address is routed on.
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            await_answer(
                cluster.pod("c1"),
                protocol,
                vip.on_cluster_ip(family),
                |answer| *answer == Answer::Refused,
            )?;
        }
    }
    Ok(vip)
}

fn forbidden_destinations(cluster: &Cluster) -> Result<()> {
    let vips = [
        serve(cluster, "destinations", &[cluster.pod("p1")])?,
        serve(cluster, "destinations", &[cluster.pod("p2")])?,
    ];
    to_loopback(cluster, &vips)
}

/// Sends questions to the node's loopback and the unspecified address from the wire and from a pod.
fn to_loopback(cluster: &Cluster, vips: &[Vip]) -> Result<()> {
    let wire = Wire::watch(cluster)?;
    let pod = cluster.pod("p1b");
    let at_pod = PacketSocket::open(&pod.netns, "eth0")?;
    let mut from_pods = Vec::new();
    let mut sent = Vec::new();
    for family in Family::BOTH {
        for vip in vips {
            for protocol in Protocol::BOTH {
                for address in nobodys(family) {
                    let to = SocketAddr::new(address, vip.node_port);
                    let port = fresh_port();
                    let from = wire.neighbour(family, port);
                    wire.send(&question(wire.link(), protocol, from, to)?)?;
                    sent.push((port, format!("{protocol} from {from} to {to}")));
                    let port = fresh_port();
                    let from = SocketAddr::new(pod.ip.of(family), port);
                    at_pod.send(&question(from_pod(pod), protocol, from, to)?)?;
                    from_pods.push((port, format!("{protocol} from {from} to {to}")));
                }
            }
        }
        // A pod's question goes another way: its answer says that those before it are through, too.
        for vip in vips {
            let to = vip.on_cluster_ip(family);
            ensure!(dial(pod, Protocol::Udp, to).ask().who().is_some(), "{to}");
        }
    }
    wire.settle_straight()?;
    wire.ensure_sent(sent[0].0)?;
    wire.ensure_no_trace(&sent)?;
    wire.ensure_no_trace_beyond("p1b", &from_pods)
}

fn nobodys(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => [[0, 0, 0, 0], [127, 0, 0, 1], [127, 1, 2, 3]]
            .map(|octets| Ipv4Addr::from(octets).into())
            .into(),
        Family::V6 => vec![Ipv6Addr::LOCALHOST.into()],
    }
}

/// The kernel routes what goes to `::` on as it came, and rules like kube-proxy's serve it as an address of the node.
fn to_nobody(cluster: &Cluster) -> Result<()> {
    let vips = [
        serve(cluster, "nobody", &[cluster.pod("p1")])?,
        serve(cluster, "nobody", &[cluster.pod("p2")])?,
    ];
    let wire = Wire::watch(cluster)?;
    let pod = cluster.pod("p1b");
    let at_pod = PacketSocket::open(&pod.netns, "eth0")?;
    let mut sent = Vec::new();
    for vip in &vips {
        for protocol in Protocol::BOTH {
            let to = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), vip.node_port);
            let port = fresh_port();
            let from = wire.neighbour(Family::V6, port);
            wire.send(&question(wire.link(), protocol, from, to)?)?;
            sent.push((port, format!("{protocol} from {from} to {to}")));
            let port = fresh_port();
            let from = SocketAddr::new(pod.ip.v6.into(), port);
            at_pod.send(&question(from_pod(pod), protocol, from, to)?)?;
            sent.push((port, format!("{protocol} from {from} to {to}")));
        }
        wire.settle(vip, Family::V6)?;
        let to = vip.on_cluster_ip(Family::V6);
        ensure!(dial(pod, Protocol::Udp, to).ask().who().is_some(), "{to}");
    }
    // The router says of each that there is no way.
    wire.ensure_none(&sent, |seen| {
        let about = seen.embedded();
        about.as_ref().unwrap_or(seen).destination != Ipv6Addr::UNSPECIFIED
    })
}

fn on_loopback_alone(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let launch = cluster.launch(node);
    let agent = Agent::begin(&launch.with(&["--nodeport-addresses", "127.0.0.0/8"]))?;
    cluster.agents().push(agent);
    cluster.agents()[0].wait_until_ready()?;
    let vips = [
        cluster.publish("loopback", &[cluster.pod("p1")])?,
        cluster.publish("loopback", &[cluster.pod("p2")])?,
    ];
    for vip in &vips {
        for protocol in Protocol::BOTH {
            let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), vip.node_port);
            await_answer(&node.host, protocol, at, |answer| answer.who().is_some())?;
        }
    }
    to_loopback(cluster, &vips)?;
    for vip in &vips {
        let at = vip.on_node(node, Family::V4);
        let answer = dial(&cluster.topology.neighbour, Protocol::Tcp, at).ask();
        ensure!(answer.who().is_none(), "{at} is served: {answer}");
    }
    Ok(())
}

/// A sender whose own Ethernet address is a group's cannot be answered there.
fn from_a_group(cluster: &Cluster) -> Result<()> {
    let served = serve(cluster, "group", &[cluster.pod("p1")])?;
    let empty = without_endpoints(cluster, "group")?;
    let wire = Wire::watch(cluster)?;
    let link = Link {
        source: Mac::MULTICAST,
        ..wire.link()
    };
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let targets = [
                empty.on_node(cluster.node(1), family),
                empty.on_cluster_ip(family),
            ];
            for to in targets {
                let from = wire.neighbour(family, fresh_port());
                wire.send(&question(link, protocol, from, to)?)?;
            }
        }
        wire.settle(&served, family)?;
    }
    let to_group = wire
        .left_the_node()
        .into_iter()
        .find(|seen| seen.to_mac == Some(Mac::MULTICAST));
    ensure!(to_group.is_none(), "{to_group:?}");
    Ok(())
}

/// RFC 1122 section 3.2.2, RFC 4443 section 2.4(e).
fn about_fragments(cluster: &Cluster) -> Result<()> {
    let served = serve(cluster, "pieces", &[cluster.pod("p1")])?;
    let empty = without_endpoints(cluster, "pieces")?;
    let wire = Wire::watch(cluster)?;
    for family in Family::BOTH {
        let to = SocketAddr::new(empty.ip.of(family), SERVICE_PORT);
        let port = fresh_port();
        let from = wire.neighbour(family, port);
        let whole = build::udp(wire.link(), from, to, Extra::Nothing, &[b'?'; 2400])?;
        for fragment in build::fragments(&whole, port, 800)? {
            wire.send(&fragment)?;
        }
        wire.settle(&served, family)?;
        let errors: Vec<_> = wire
            .left_the_node()
            .into_iter()
            .filter(|seen| seen.icmp.is_some() && seen.destination == from.ip())
            .filter_map(|seen| seen.embedded())
            .filter(|quoted| quoted.destination == to.ip())
            .collect();
        ensure!(errors.len() <= 1, "{} errors: {errors:#?}", errors.len());
        let about_first = errors.iter().all(|quoted| quoted.has_port(port));
        ensure!(about_first, "{errors:#?}");
    }
    Ok(())
}
