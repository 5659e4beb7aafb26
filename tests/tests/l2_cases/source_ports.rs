//! Flows that would look alike behind the rewrite stay apart.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::sockets::Protocol;
use testbed::topology::{Host, Node};

use crate::world::{World, dial, open, serve, who};

const SERVICES: usize = 3;

/// The first of some that no other row uses.
const STRAIGHT_PORT: u16 = 20_060;
const BESIDE_PORT: u16 = 20_070;

pub fn rows(world: &World) -> Vec<Trial> {
    let mut rows = Vec::new();
    for (place, backend) in [("local", "p1"), ("remote", "p2")] {
        for protocol in Protocol::BOTH {
            let name = format!(
                "{protocol}: ten clients with one source port to three services with one {place} backend get their own answers"
            );
            rows.push(world.row(name, move |cluster| {
                let clients: Vec<_> = cluster.topology.clients.iter().collect();
                kept_apart(cluster, &clients, protocol, backend, |vip, family| {
                    vip.on_node(cluster.node(1), family)
                })
            }));
            let name = format!(
                "{protocol}: one port of a pod to three services with one {place} backend is three flows"
            );
            rows.push(world.row(name, move |cluster| {
                kept_apart(
                    cluster,
                    &[cluster.pod("c1")],
                    protocol,
                    backend,
                    Vip::on_cluster_ip,
                )
            }));
        }
    }
    rows.push(world.row(
        "tcp: a port whose connection through a service is over connects straight to the backend",
        straight_after_service,
    ));
    for protocol in Protocol::BOTH {
        let name = format!(
            "{protocol}: a port from which the node itself talks to a backend is left to the node"
        );
        rows.push(world.row(name, move |cluster| beside_the_node(cluster, protocol)));
    }
    rows
}

/// A connection through a service that was translated where the straight one passes, too, but only the first is tracked.
fn straight_after_service(cluster: &Cluster) -> Result<()> {
    let (client, pod) = (cluster.topology.client(), cluster.pod("c1"));
    let (node1, node2) = (cluster.node(1), cluster.node(2));
    let vip = serve(cluster, "before", &[cluster.pod("p2")])?;
    let ways: [(&Host, &Node, &Host, &str); 3] = [
        (client, node2, client, "a client of the backend's node"),
        (
            pod,
            node2,
            pod,
            "a pod that goes by the node port of the backend's node",
        ),
        (
            client,
            node1,
            &node1.host,
            "a node that stood in for a client as a full proxy",
        ),
    ];
    for (number, (before, node, then, way)) in (0..).zip(ways) {
        for family in Family::BOTH {
            let name = || format!("{way}, over {family}");
            let port = STRAIGHT_PORT + number;
            let through = vip.on_node(node, family);
            let straight = SocketAddr::new(cluster.pod("p2").ip.of(family), PORT);
            for target in [through, straight, vip.on_cluster_ip(family)] {
                let from = if target == through { before } else { then };
                let answer = dial(from, Protocol::Tcp, target).from_port(port).ask();
                let server = who(answer).with_context(|| format!("{}: {target}", name()))?;
                ensure!(server == "p2", "{}: {target}: {server}", name());
            }
        }
    }
    Ok(())
}

/// The node stands in for an outside client, whose port it has in use for a connection of its own to the same backend.
fn beside_the_node(cluster: &Cluster, protocol: Protocol) -> Result<()> {
    let (client, node) = (cluster.topology.client(), cluster.node(1));
    let vip = serve(cluster, "beside", &[cluster.pod("p2")])?;
    for family in Family::BOTH {
        let straight = SocketAddr::new(cluster.pod("p2").ip.of(family), PORT);
        let ways = [
            (&node.host, straight, "the node's own"),
            (client, vip.on_node(node, family), "by the node port"),
        ];
        let mut conversations = Vec::new();
        for (from, target, way) in ways {
            let dial = dial(from, protocol, target).from_port(BESIDE_PORT);
            let name = || format!("{way}, over {family}");
            conversations.push((open(dial).with_context(name)?, way));
        }
        for round in 1..=3 {
            for (conversation, way) in &mut conversations {
                let server = who(conversation.ask())
                    .with_context(|| format!("{way}, over {family}, round {round}"))?;
                ensure!(server == "p2", "{way}: {server}");
            }
        }
    }
    Ok(())
}

/// Every client opens a connection to every service from the same source port, and all are open at once.
fn kept_apart(
    cluster: &Cluster,
    clients: &[&Host],
    protocol: Protocol,
    backend: &str,
    target: impl Fn(&Vip, Family) -> std::net::SocketAddr,
) -> Result<()> {
    let vips = (0..SERVICES)
        .map(|_| serve(cluster, "common", &[cluster.pod(backend)]))
        .collect::<Result<Vec<_>>>()?;
    for family in Family::BOTH {
        let mut conversations = Vec::new();
        for client in clients {
            for vip in &vips {
                let target = target(vip, family);
                let name = format!("{} to {target}", client.name);
                let dial = dial(client, protocol, target).from_port(source_port(protocol, backend));
                conversations.push((open(dial).with_context(|| name.clone())?, name));
            }
        }
        for round in 1..=3 {
            for (conversation, name) in &mut conversations {
                let server =
                    who(conversation.ask()).with_context(|| format!("{name}, round {round}"))?;
                ensure!(server == backend, "{name} was served by {server}");
            }
        }
    }
    Ok(())
}

/// Not one that another row has just closed.
fn source_port(protocol: Protocol, backend: &str) -> u16 {
    let protocol = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    };
    20000 + protocol * 10 + u16::from(backend == "p2")
}
