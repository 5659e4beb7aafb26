//! A service's address moves from one node to another, under connections that only the first node knows; and from
//! kube-proxy's rules to Portside on one node.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{Family, Pair};
use testbed::agent::{self, Uplink};
use testbed::cluster::{Cluster, Vip};
use testbed::kube_proxy;
use testbed::masquerade;
use testbed::patience::{eventually, patient};
use testbed::sockets::Protocol;
use testbed::topology::{Host, Plan};
use testbed::wire::build::{self, Link, Segment};
use testbed::wire::{Capture, PacketSocket, Seen};

use crate::inject::fresh_port;
use crate::world::{World, await_answer, dial, open, who};

/// Nobody's on any segment: the router knows the way.
const ROUTED: Pair = Pair::new([203, 0, 113, 10], [0x2001, 0xdb8, 0x50, 0, 0, 0, 0, 10]);
/// On the nodes' segment.
const ON_LINK: Pair = Pair::new([198, 18, 0, 51], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 51]);

/// Longer than an agent takes to look whether connections of kube-proxy are left.
const LOOKED: Duration = Duration::from_secs(4);
/// From one segment to the next.
const BETWEEN: Duration = Duration::from_millis(100);

/// Well before a segment would be sent again more than once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Of one request and its reset, with all that may be sent again meanwhile. What is routed back out passes some sixty times.
const FRAMES: usize = 16;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![world.row(
        "a connection to an address that moved to another node is reset at once",
        |cluster| {
            ["p1", "p2"]
                .iter()
                .try_for_each(|backend| moved(cluster, backend))
        },
    )]
}

pub fn rows_of_takeovers(uplink: Uplink) -> Vec<Trial> {
    let world = World::without_agents(uplink, Plan::default());
    let missing = (!masquerade::available()).then_some(masquerade::MISSING);
    vec![world.row_unless(
        missing,
        "connections that kube-proxy translates to any address of a service outlive the switch",
        taken_over,
    )]
}

pub fn rows_of_starts(uplink: Uplink) -> Vec<Trial> {
    let world = World::without_agents(uplink, Plan::default());
    vec![world.row_beside_xdp(
        "from an agent's first moment on no segment of a service address is routed back out",
        never_routed,
    )]
}

/// How the router brings an address to a node.
#[derive(Clone, Copy)]
enum By {
    Route,
    Neighbour,
}

fn moved(cluster: &Cluster, backend: &str) -> Result<()> {
    for (address, by) in [
        (Some(ROUTED), By::Route),
        (Some(ON_LINK), By::Neighbour),
        (None, By::Route),
    ] {
        let vip = cluster.vip("moved");
        let address = address.unwrap_or(vip.ip);
        let vip = cluster.publish_at(vip.behind(address), &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            away(cluster, &vip, family, by).with_context(|| format!("{}", address.of(family)))?;
        }
        // The next service has the same address.
        cluster.withdraw(&vip)?;
    }
    Ok(())
}

fn bring(
    cluster: &Cluster,
    address: SocketAddr,
    family: Family,
    by: By,
    node: usize,
) -> Result<()> {
    let to = &cluster.node(node).host;
    let ip = address.ip();
    cluster.topology.router.netns.ip(&match by {
        By::Route => format!("route replace {ip} via {}\n", to.ip.of(family)),
        By::Neighbour => format!(
            "neigh replace {ip} lladdr {} dev seg0 nud permanent\n",
            to.mac
        ),
    })
}

fn away(cluster: &Cluster, vip: &Vip, family: Family, by: By) -> Result<()> {
    let (client, target) = (cluster.topology.client(), vip.on_external(family));
    bring(cluster, target, family, by, 2)?;
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who().is_some()
    })?;
    bring(cluster, target, family, by, 1)?;
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who().is_some()
    })?;
    await_resets(cluster, family, target)?;
    let mut stream = open(dial(client, Protocol::Tcp, target))?;
    let mut datagrams = open(dial(client, Protocol::Udp, target))?;
    who(stream.ask())?;
    who(datagrams.ask())?;
    let router = &cluster.topology.router.netns;
    let port = stream.port()?;
    bring(cluster, target, family, by, 2)?;
    let on_wire = Capture::start(router, "seg0")?;
    let begin = Instant::now();
    let answer = stream.ask();
    let took = begin.elapsed();
    let is_reset = answer.to_string().contains("reset by peer");
    ensure!(is_reset, "after {took:?}: {answer}");
    ensure!(took < patient(AT_ONCE), "only after {took:?}");
    // Datagrams begin anew, wherever they come.
    who(datagrams.ask())?;
    who(dial(client, Protocol::Tcp, target).ask())?;
    let frames = on_wire
        .packets()
        .into_iter()
        .filter(|seen| seen.has_port(port))
        .count();
    ensure!(frames <= FRAMES, "{frames} frames for one request");
    bring(cluster, target, family, by, 1)
}

/// Before the agent has looked whether the kernel knows connections that were made under kube-proxy, while it looks, and after that.
fn never_routed(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("unknown").behind(ROUTED);
    let vip = cluster.publish_at(vip, &[cluster.pod("p1")])?;
    for family in Family::BOTH {
        bring(cluster, vip.on_external(family), family, By::Route, 1)?;
    }
    cluster.start_first_agent()?;
    let wire = Probes::of(cluster, 1)?;
    let mut sent = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < LOOKED {
        for family in Family::BOTH {
            sent.push((
                begin.elapsed(),
                wire.send(cluster, vip.on_external(family), family)?,
            ));
        }
        thread::sleep(BETWEEN);
    }
    eventually("a reset for each segment", || {
        let frames = wire.capture.packets();
        for (at, port) in &sent {
            let of_probe: Vec<&Seen> = frames.iter().filter(|seen| seen.has_port(*port)).collect();
            let resets = of_probe.iter().filter(|seen| is_reset(seen)).count();
            ensure!(resets == 1, "{resets} resets for the one after {at:?}");
        }
        Ok(())
    })?;
    let frames = wire.capture.packets();
    for (at, port) in sent {
        // The stack may tell the client of a better router (an ICMP redirect), which quotes the segment.
        let of_probe = |seen: &&Seen| seen.tcp.is_some() && seen.has_port(port);
        let segments: Vec<_> = frames.iter().filter(of_probe).collect();
        ensure!(
            segments.len() == 2,
            "not the segment after {at:?} and its reset: {segments:?}"
        );
    }
    Ok(())
}

/// Segments of no connection on the wire before a node, and what is seen there.
struct Probes {
    socket: PacketSocket,
    capture: Capture,
    link: Link,
}

impl Probes {
    fn of(cluster: &Cluster, node: usize) -> Result<Self> {
        let (router, node) = (&cluster.topology.router, cluster.node(node));
        Ok(Self {
            socket: PacketSocket::open(&router.netns, node.name())?,
            capture: Capture::start(&router.netns, node.name())?,
            link: Link {
                source: router.mac,
                destination: node.host.mac,
                vlan: None,
            },
        })
    }

    /// Sends one, and says from which port.
    fn send(&self, cluster: &Cluster, target: SocketAddr, family: Family) -> Result<u16> {
        let port = fresh_port();
        let from = SocketAddr::new(cluster.topology.client().ip.of(family), port);
        let segment = Segment {
            sequence: 1000,
            acknowledges: Some(2000),
            ..Segment::default()
        };
        self.socket
            .send(&build::tcp(self.link, from, target, segment)?)?;
        Ok(port)
    }
}

/// On its way from the node.
fn is_reset(seen: &Seen) -> bool {
    !seen.outgoing && seen.tcp.is_some_and(|tcp| tcp.rst)
}

/// Waits until the second node resets what it does not know: an agent first looks whether the kernel knows connections that were made under
/// kube-proxy.
fn await_resets(cluster: &Cluster, family: Family, target: SocketAddr) -> Result<()> {
    let wire = Probes::of(cluster, 2)?;
    let mut ports = Vec::new();
    eventually("a reset for a segment of no connection", || {
        ports.push(wire.send(cluster, target, family)?);
        let of_probe = |seen: &Seen| ports.iter().any(|port| seen.has_port(*port));
        let frames = wire.capture.packets();
        ensure!(frames.iter().any(|seen| of_probe(seen) && is_reset(seen)));
        Ok(())
    })
}

/// From outside, a pod and the node itself, to the cluster address, a load balancer's, and a node port.
fn taken_over(cluster: &Cluster) -> Result<()> {
    let (node, pods) = (cluster.node(1), [cluster.pod("p1"), cluster.pod("p2")]);
    let vip = cluster.vip("taken-over").behind(ROUTED);
    kube_proxy::install_as(node, kube_proxy::TABLE, &vip, &pods)?;
    let mut connections = Vec::new();
    for family in Family::BOTH {
        bring(cluster, vip.on_external(family), family, By::Route, 1)?;
        let targets = [
            vip.on_node(node, family),
            vip.on_cluster_ip(family),
            vip.on_external(family),
        ];
        let clients: [&Host; 3] = [cluster.topology.client(), cluster.pod("c1"), &node.host];
        for (client, target) in clients
            .iter()
            .flat_map(|client| targets.map(|target| (client, target)))
        {
            let name = format!("{} to {target}", client.name);
            // One to each of the pods, most likely.
            for _ in 0..3 {
                let opened = open(dial(client, Protocol::Tcp, target));
                let mut opened = opened.with_context(|| name.clone())?;
                let server = who(opened.ask()).with_context(|| name.clone())?;
                connections.push((opened, name.clone(), server));
            }
        }
    }
    let mut go_on = |when: &str| -> Result<()> {
        for (connection, name, server) in &mut connections {
            for _ in 0..2 {
                let now = who(connection.ask()).with_context(|| format!("{name}, {when}"))?;
                ensure!(now == *server, "{name}: {now}, not {server}");
            }
        }
        Ok(())
    };
    cluster.publish_at(vip.clone(), &pods)?;
    cluster.start_first_agent()?;
    go_on("with Portside beside the rules")?;
    let mut cleanup = node.netns().command(agent::binary().context("no agent")?)?;
    let cleanup = cleanup.args(["cleanup", "--kube-proxy"]).output()?;
    let said = String::from_utf8_lossy(&cleanup.stdout);
    ensure!(said.contains("removed table ip kube-proxy"), "{said}");
    go_on("without the rules")?;
    thread::sleep(IDLE);
    go_on("after a while")?;
    // What is new is served by Portside alone.
    for family in Family::BOTH {
        let target = vip.on_node(node, family);
        let answer = dial(cluster.topology.client(), Protocol::Tcp, target).ask();
        who(answer).with_context(|| format!("a new connection to {target}"))?;
    }
    Ok(())
}

/// Longer than the coarse step of time at which flows are renewed.
const IDLE: Duration = Duration::from_millis(1500);
