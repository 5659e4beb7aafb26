//! Packets whose sender is not who it says: a pod, or a host on the wire, that forges an end of somebody else's connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::{ConnectionState, PinDir};
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::patience::is_slow;
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::topology::{Host, Plan};
use testbed::wire::build::{self, Extra, Link, Segment};
use testbed::wire::{Capture, PacketSocket};

use crate::inject::{fresh_port, from_pod};
use crate::world::{World, dial, open, serve, who};

/// How often a connection is to be ended by a guess.
const GUESSES: u32 = 6;
/// Ports that a pod goes through, the right one among them.
const SCANNED: u16 = 64;
const FORGED: &[u8] = b"forged";

pub fn rows(world: &World) -> Vec<Trial> {
    let mut rows = vec![
        world.row(
            "a pod cannot answer in the place of a remote backend",
            forged_replies,
        ),
        world.row(
            "a pod cannot ask a service in the name of another pod",
            forged_clients,
        ),
        world.row(
            "a pod that goes through all ports with resets ends no connection",
            scanned,
        ),
        world.row(
            "a connection that its client resets makes room at once",
            really_reset,
        ),
    ];
    for backend in ["p1", "p2"] {
        let place = if backend == "p1" { "local" } else { "remote" };
        let name =
            format!("a blind reset and a SYN behind it end no connection to a {place} backend");
        rows.push(world.row(name, move |cluster| blind_resets(cluster, backend)));
    }
    rows
}

/// What shows in the flow table alone.
pub fn rows_of_agents(world: &World) -> Vec<Trial> {
    vec![world.row("a blind reset does not cut the life of a flow", uncut)]
}

/// By itself the row passes there. What disturbs it is not known.
const UNSTEADY: &str = "beside other rows of an emulated machine it fails now and then";

/// On a cluster of their own.
pub fn rows_of_strict_agents(uplink: Uplink) -> Vec<Trial> {
    let world = World::without_agents(uplink, Plan::default());
    vec![world.row_unless(
        is_slow().then_some(UNSTEADY),
        "where sources are asked strictly no pod answers in another backend's place behind the stack",
        forged_behind_the_stack,
    )]
}

/// Families in which a device asks where a source is: the kernel has `rp_filter` for IPv4, Portside for both.
fn checked(cluster: &Cluster) -> &'static [Family] {
    if cluster.has_rules() {
        &[Family::V4]
    } else {
        &Family::BOTH
    }
}

/// Opens a conversation and lets it tell at which address its server sees it.
fn open_seen(
    client: &Host,
    protocol: Protocol,
    target: SocketAddr,
) -> Result<(Conversation, SocketAddr)> {
    let mut conversation = open(dial(client, protocol, target).from_port(fresh_port()))?;
    // A second request confirms a flow of UDP.
    who(conversation.ask())?;
    match conversation.ask() {
        Answer::Ok { client, .. } => Ok((conversation, client)),
        other => Err(anyhow!("{other}")),
    }
}

/// The pod's frames have the backend's address and port, and go where the backend's replies go.
fn forged_replies(cluster: &Cluster) -> Result<()> {
    let (node, forger) = (cluster.node(1), cluster.pod("c1"));
    let vip = serve(cluster, "replies", &[cluster.pod("p2")])?;
    let socket = PacketSocket::open(&forger.netns, "eth0")?;
    for family in checked(cluster) {
        let backend = SocketAddr::new(cluster.pod("p2").ip.of(*family), PORT);
        let ways: [(&Host, SocketAddr); 4] = [
            (cluster.topology.client(), vip.on_node(node, *family)),
            (&cluster.topology.neighbour, vip.on_cluster_ip(*family)),
            (&node.host, vip.on_cluster_ip(*family)),
            (cluster.pod("p1b"), vip.on_cluster_ip(*family)),
        ];
        // What one pod sends to another goes through the stack, which has no rp_filter for IPv6.
        let through_stack = |client: &Host| client.name == "p1b" && *family == Family::V6;
        for (client, target) in ways
            .into_iter()
            .filter(|(client, _)| !through_stack(client))
        {
            cannot_answer(cluster, &socket, backend, client, target)?;
        }
    }
    Ok(())
}

/// What is forged in the place of a backend, by `c1`, neither reaches the client as an answer nor ends its connection.
fn cannot_answer(
    cluster: &Cluster,
    socket: &PacketSocket,
    backend: SocketAddr,
    client: &Host,
    target: SocketAddr,
) -> Result<()> {
    let (forger, family) = (cluster.pod("c1"), family_of(target));
    let name = || format!("{} to {target}", client.name);
    let (mut victim, seen) = open_seen(client, Protocol::Udp, target).with_context(name)?;
    let frame = build::udp(from_pod(forger), backend, seen, Extra::Nothing, FORGED)?;
    socket.send(&frame)?;
    forger_is_through(cluster, family)?;
    // What was forged would be taken for the next answer.
    let server = who(victim.ask()).with_context(name)?;

    let mut victim = Victim::open(client, target).with_context(name)?;
    for [_, sequence] in victim.guesses() {
        let frame = build::tcp(from_pod(forger), backend, victim.seen, reset(sequence))?;
        socket.send(&frame)?;
    }
    forger_is_through(cluster, family)?;
    victim.goes_on(target, &server).with_context(name)
}

/// Pods of the node, one of which forges another, and a client outside: their packets meet in the stack, which asks no source of IPv6.
fn forged_behind_the_stack(cluster: &Cluster) -> Result<()> {
    let (node, forger) = (cluster.node(1), cluster.pod("c1"));
    let services = ["p1", "p2"].map(|pod| (pod, cluster.publish("behind", &[cluster.pod(pod)])));
    cluster.start_agent(&cluster.launch(node).with(&["--source-check", "strict"]))?;
    let socket = PacketSocket::open(&forger.netns, "eth0")?;
    for (pod, vip) in services {
        let vip = vip?;
        for family in Family::BOTH {
            let backend = SocketAddr::new(cluster.pod(pod).ip.of(family), PORT);
            let ways: [(&Host, SocketAddr); 2] = [
                (cluster.pod("p1b"), vip.on_cluster_ip(family)),
                (cluster.topology.client(), vip.on_node(node, family)),
            ];
            for (client, target) in ways {
                cannot_answer(cluster, &socket, backend, client, target)?;
            }
            // Who sends from its own address is served, and serves.
            who(dial(cluster.pod("p1"), Protocol::Tcp, vip.on_cluster_ip(family)).ask())?;
            let straight = SocketAddr::new(cluster.pod("p1").ip.of(family), PORT);
            who(dial(forger, Protocol::Tcp, straight).ask())?;
        }
    }
    Ok(())
}

fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// Waits until all that the forger sent before has been dealt with.
fn forger_is_through(cluster: &Cluster, family: Family) -> Result<()> {
    let at = SocketAddr::new(cluster.pod("p1").ip.of(family), PORT);
    who(dial(cluster.pod("c1"), Protocol::Udp, at).ask())?;
    Ok(())
}

/// How often a connection is asked until one of its segments is captured.
const CAPTURES: usize = 10;

/// A TCP connection, and the numbers that its ends use: what is guessed here is known to be wrong.
struct Victim {
    connection: Conversation,
    own: SocketAddr,
    /// As its server sees it.
    seen: SocketAddr,
    /// Of its next segment, and of its server's.
    next: [u32; 2],
}

impl Victim {
    fn open(client: &Host, target: SocketAddr) -> Result<Self> {
        let capture = Capture::start(&client.netns, "eth0")?;
        let (mut connection, seen) = open_seen(client, Protocol::Tcp, target)?;
        let family = family_of(target);
        let own = SocketAddr::new(client.ip.of(family), connection.port()?);
        let mut last = None;
        // Where other rows flood the device, the capture may have had no room for a segment.
        for _ in 0..CAPTURES {
            let packets = capture.packets();
            let sent = packets.iter().rev().find(|seen| seen.from() == Some(own));
            last = sent.and_then(|seen| seen.tcp);
            if last.is_some() {
                break;
            }
            who(connection.ask())?;
        }
        let last = last.context("no segment")?;
        Ok(Self {
            connection,
            own,
            seen,
            next: [last.sequence, last.acknowledges],
        })
    }

    /// Numbers for a segment of the client's and one of the server's, far from where they are and from each other.
    fn guesses(&self) -> impl Iterator<Item = [u32; 2]> + use<> {
        let next = self.next;
        (1..=GUESSES).map(move |number| next.map(|next| next.wrapping_add(number << 28)))
    }

    fn goes_on(&mut self, target: SocketAddr, backend: &str) -> Result<()> {
        // A segment that changed something shows at the next one, or at the one after it.
        for _ in 0..2 {
            let name = || format!("{target} from {}", self.own);
            let server = who(self.connection.ask()).with_context(name)?;
            ensure!(server == backend, "{target}: {server}");
        }
        Ok(())
    }
}

fn reset(sequence: u32) -> Segment<'static> {
    Segment {
        sequence,
        rst: true,
        ..Segment::default()
    }
}

/// The victim would get answers to what it never asked.
fn forged_clients(cluster: &Cluster) -> Result<()> {
    let forger = cluster.pod("c1");
    let socket = PacketSocket::open(&forger.netns, "eth0")?;
    // Also the backend itself, to which a service would lead back.
    for (backend, victim) in [("p1", "p1b"), ("p2", "p1b"), ("p1", "p1")] {
        let victim = cluster.pod(victim);
        let vip = serve(cluster, "clients", &[cluster.pod(backend)])?;
        let at_backend = Capture::start(&cluster.pod(backend).netns, "eth0")?;
        let at_victim = Capture::start(&victim.netns, "eth0")?;
        for family in checked(cluster) {
            let mut ports = Vec::new();
            for protocol in Protocol::BOTH {
                let targets = [
                    vip.on_cluster_ip(*family),
                    vip.on_node(cluster.node(1), *family),
                ];
                for to in targets {
                    let port = fresh_port();
                    let from = SocketAddr::new(victim.ip.of(*family), port);
                    let frame = crate::inject::question(from_pod(forger), protocol, from, to)?;
                    socket.send(&frame)?;
                    ports.push((port, format!("{protocol} from {from} to {to}")));
                }
            }
            who(dial(forger, Protocol::Udp, vip.on_cluster_ip(*family)).ask())?;
            // Other rows have clients of their own, outside, whose ports may be the same.
            let own = victim.ip.of(*family);
            for (port, what) in ports {
                for (place, capture) in [(backend, &at_backend), (victim.name.as_str(), &at_victim)]
                {
                    let trace = capture.packets().into_iter().find(|seen| {
                        seen.has_port(port) && [seen.source, seen.destination].contains(&own)
                    });
                    ensure!(trace.is_none(), "{what}: at {place}: {trace:?}");
                }
            }
        }
    }
    Ok(())
}

/// From a host on the nodes' segment, with the address and port of a client: RSTs of any number, each followed by a SYN straight to
/// the backend.
fn blind_resets(cluster: &Cluster, backend: &str) -> Result<()> {
    let (node, client) = (cluster.node(1), cluster.topology.client());
    let vip = serve(cluster, "blind", &[cluster.pod(backend)])?;
    let forger = &cluster.topology.neighbour;
    let socket = PacketSocket::open(&forger.netns, "eth0")?;
    let link = Link {
        source: forger.mac,
        destination: node.host.mac,
        vlan: None,
    };
    for family in Family::BOTH {
        let target = vip.on_node(node, family);
        let straight = SocketAddr::new(cluster.pod(backend).ip.of(family), PORT);
        for guess in 0..GUESSES as usize {
            let mut victim = Victim::open(client, target)?;
            let numbers = victim.guesses().nth(guess).context("no guess")?;
            // The one that is in the backend's place by what the node shows of it, too.
            let ends = [(victim.own, target), (straight, victim.seen)];
            for ((from, to), sequence) in ends.into_iter().zip(numbers) {
                socket.send(&build::tcp(link, from, to, reset(sequence))?)?;
            }
            for from in [victim.own, victim.seen] {
                socket.send(&build::syn(link, from, straight)?)?;
            }
            is_through(cluster, &vip, family)?;
            let name = || format!("guess {guess}");
            victim.goes_on(target, backend).with_context(name)?;
        }
    }
    Ok(())
}

/// A flow that a reset ended would give up its ports a minute later.
fn uncut(cluster: &Cluster) -> Result<()> {
    let (node, client) = (cluster.node(1), cluster.topology.client());
    let forger = &cluster.topology.neighbour;
    let socket = PacketSocket::open(&forger.netns, "eth0")?;
    let link = Link {
        source: forger.mac,
        destination: node.host.mac,
        vlan: None,
    };
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, "uncut", &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            let target = vip.on_node(node, family);
            let straight = SocketAddr::new(cluster.pod(backend).ip.of(family), PORT);
            let victim = Victim::open(client, target)?;
            for numbers in victim.guesses() {
                let ends = [(victim.own, target), (straight, victim.seen)];
                for ((from, to), sequence) in ends.into_iter().zip(numbers) {
                    socket.send(&build::tcp(link, from, to, reset(sequence))?)?;
                }
            }
            is_through(cluster, &vip, family)?;
            let all = PinDir::new(&node.bpffs).open_maps()?.connections()?;
            let flow = all
                .into_iter()
                .find(|flow| flow.client == victim.own && flow.frontend == target)
                .with_context(|| format!("no flow of {} to {target}", victim.own))?;
            ensure!(flow.state == ConnectionState::Established, "{flow:#?}");
        }
    }
    Ok(())
}

fn is_through(cluster: &Cluster, vip: &Vip, family: Family) -> Result<()> {
    let at = vip.on_node(cluster.node(1), family);
    who(dial(&cluster.topology.neighbour, Protocol::Udp, at).ask())?;
    Ok(())
}

/// The pod knows services and backends, and tries every port of a client.
fn scanned(cluster: &Cluster) -> Result<()> {
    let (node, forger) = (cluster.node(1), cluster.pod("c1"));
    let socket = PacketSocket::open(&forger.netns, "eth0")?;
    let link = from_pod(forger);
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, "scanned", &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            let target = vip.on_node(node, family);
            let straight = SocketAddr::new(cluster.pod(backend).ip.of(family), PORT);
            let client = cluster.topology.client();
            let mut victim = Victim::open(client, target)?;
            let numbers = victim.guesses().next().context("no guess")?;
            let first = victim.own.port() - SCANNED / 2;
            for port in first..first + SCANNED {
                let own = SocketAddr::new(victim.own.ip(), port);
                let seen = SocketAddr::new(victim.seen.ip(), port);
                let ways = [(own, target), (seen, straight), (straight, seen)];
                let numbers = [numbers[0], numbers[0], numbers[1]];
                for ((from, to), sequence) in ways.into_iter().zip(numbers) {
                    socket.send(&build::tcp(link, from, to, reset(sequence))?)?;
                }
                for from in [own, seen] {
                    socket.send(&build::syn(link, from, straight)?)?;
                }
            }
            forger_is_through(cluster, family)?;
            victim.goes_on(target, backend)?;
        }
    }
    Ok(())
}

/// What is over is over: another connection from the same port works at once, to the service and straight to its backend.
fn really_reset(cluster: &Cluster) -> Result<()> {
    let (node, client) = (cluster.node(1), cluster.topology.client());
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, "reset", &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            let target = vip.on_node(node, family);
            let straight = SocketAddr::new(cluster.pod(backend).ip.of(family), PORT);
            for again in [target, straight] {
                let port = fresh_port();
                let mut first = open(dial(client, Protocol::Tcp, target).from_port(port))?;
                who(first.ask())?;
                first.reset()?;
                let name = || format!("{again} after a reset connection to {target}");
                let second = dial(client, Protocol::Tcp, again).from_port(port).ask();
                ensure!(who(second).with_context(name)? == backend);
            }
        }
    }
    Ok(())
}
