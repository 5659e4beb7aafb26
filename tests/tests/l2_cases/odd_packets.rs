//! Fragments and options: handled, never broken.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::cluster::{Cluster, PORT};
use testbed::sockets::Protocol;
use testbed::sockets::client::unique_content;
use testbed::topology::Host;
use testbed::wire::build::{self, Extra, Link};
use testbed::wire::{Capture, PacketSocket};

use crate::world::{World, dial, serve};

const FRAGMENTED: usize = 4000;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "a fragmented datagram passes through a service both ways",
            fragments,
        ),
        world.row_beside_xdp(
            "a datagram with options to a pod arrives as it was sent",
            options_of_no_service,
        ),
        world.row(
            "a datagram with options to a service is answered",
            options_of_a_service,
        ),
    ]
}

fn fragments(cluster: &Cluster) -> Result<()> {
    let content = unique_content(FRAGMENTED);
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, "fragments", &[cluster.pod(backend)])?;
        for family in Family::BOTH {
            let places: [(&Host, SocketAddr); 3] = [
                (
                    cluster.topology.client(),
                    vip.on_node(cluster.node(1), family),
                ),
                (cluster.pod("c1"), vip.on_cluster_ip(family)),
                (&cluster.node(1).host, vip.on_cluster_ip(family)),
            ];
            for (client, target) in places {
                let answer = dial(client, Protocol::Udp, target).ask_for(&content);
                ensure!(
                    answer.who().is_some(),
                    "{} to {target} served by {backend}: {answer}",
                    client.name
                );
            }
        }
    }
    Ok(())
}

fn options_of_no_service(cluster: &Cluster) -> Result<()> {
    let (sender, pod) = (&cluster.topology.neighbour, cluster.pod("p1"));
    for family in Family::BOTH {
        let at_pod = Capture::start(&pod.netns, "eth0")?;
        let (from, to) = ends(sender, SocketAddr::new(pod.ip.of(family), PORT));
        send_with_options(cluster, from, to)?;
        // The pod has other rows' clients at the same time.
        let arrived = at_pod.find("the datagram at the pod", |seen| {
            (seen.from(), seen.to()) == (Some(from), Some(to))
        })?;
        ensure!(arrived.payload == CONTENT, "{arrived:?}");
        ensure!(at_pod.broken().is_empty(), "{:#?}", at_pod.broken());
    }
    Ok(())
}

fn options_of_a_service(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "options", &[cluster.pod("p1")])?;
    let sender = &cluster.topology.neighbour;
    for family in Family::BOTH {
        let (at_sender, at_pod) = (
            Capture::start(&sender.netns, "eth0")?,
            Capture::start(&cluster.pod("p1").netns, "eth0")?,
        );
        let (from, to) = ends(sender, vip.on_node(cluster.node(1), family));
        send_with_options(cluster, from, to)?;
        at_sender.find("an answer", |seen| {
            !seen.outgoing
                && (seen.from(), seen.to()) == (Some(to), Some(from))
                && seen.payload.ends_with(CONTENT)
        })?;
        ensure!(
            at_sender.broken().is_empty() && at_pod.broken().is_empty(),
            "{:#?}",
            at_pod.broken()
        );
    }
    Ok(())
}

const CONTENT: &[u8] = b"a datagram with options";

fn ends(sender: &Host, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    (SocketAddr::new(sender.ip.of(family), 12345), to)
}

fn send_with_options(cluster: &Cluster, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let (sender, node) = (&cluster.topology.neighbour, &cluster.node(1).host);
    let link = Link {
        source: sender.mac,
        destination: node.mac,
        vlan: None,
    };
    PacketSocket::open(&sender.netns, "eth0")?.send(&build::udp(
        link,
        from,
        to,
        Extra::Options,
        CONTENT,
    )?)
}
