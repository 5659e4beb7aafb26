//! Fragments, options and VLAN tags: handled or passed on, never broken.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tests::address::Family;
use tests::cluster::{Cluster, PORT};
use tests::patience::eventually;
use tests::sockets::Protocol;
use tests::sockets::client::unique_content;
use tests::topology::Host;
use tests::wire::build::{self, Extra, Link};
use tests::wire::{Capture, PacketSocket, Seen};

use crate::world::{World, dial, serve};

const FRAGMENTED: usize = 4000;
const VLAN: u16 = 77;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "a fragmented datagram passes through a service both ways",
            fragments,
        ),
        world.row(
            "a datagram with options to a pod arrives as it was sent",
            options_of_no_service,
        ),
        world.row(
            "a datagram with options to a service is answered or refused",
            options_of_a_service,
        ),
        world.row("tagged frames pass on an uplink", tagged),
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

/// Passed on untranslated, it meets a node that has no such port.
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
        at_sender.find("an answer", |seen| is_answer(seen, to, CONTENT))?;
        ensure!(
            at_sender.broken().is_empty() && at_pod.broken().is_empty(),
            "{:#?}",
            at_pod.broken()
        );
    }
    Ok(())
}

fn is_answer(seen: &Seen, to: SocketAddr, content: &[u8]) -> bool {
    let echo = seen.from() == Some(to) && seen.payload.ends_with(content);
    let refusal = seen.embedded().is_some_and(|about| about.to() == Some(to));
    !seen.outgoing && (echo || refusal)
}

const CONTENT: &[u8] = b"a datagram with options";
/// Not the others': rows run side by side, and the pod serves them all.
const TAGGED_CONTENT: &[u8] = b"a datagram under a tag";

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

/// A frame of another VLAN is none of ours, or wholly so: what reaches a backend is also answered under its tag.
fn tagged(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "tagged", &[cluster.pod("p1")])?;
    let (sender, node, pod) = (
        &cluster.topology.neighbour,
        &cluster.node(1).host,
        cluster.pod("p1"),
    );
    let link = Link {
        source: sender.mac,
        destination: node.mac,
        vlan: Some(VLAN),
    };
    for family in Family::BOTH {
        let [at_sender, at_node, at_pod] =
            [&sender.netns, &node.netns, &pod.netns].map(|netns| Capture::start(netns, "eth0"));
        let (at_sender, at_node, at_pod) = (at_sender?, at_node?, at_pod?);
        let (from, to) = ends(sender, vip.on_node(cluster.node(1), family));
        let frame = build::udp(link, from, to, Extra::Nothing, TAGGED_CONTENT)?;
        PacketSocket::open(&sender.netns, "eth0")?.send(&frame)?;
        eventually("the frame, passed on or answered", || {
            let passed_on = at_node
                .packets()
                .into_iter()
                .any(|seen| is_tagged(&seen) && seen.to() == Some(to));
            let answered = at_sender
                .packets()
                .into_iter()
                .any(|seen| is_tagged(&seen) && is_answer(&seen, to, TAGGED_CONTENT));
            let reached = at_pod
                .packets()
                .into_iter()
                .any(|seen| seen.payload == TAGGED_CONTENT);
            ensure!(
                answered || (passed_on && !reached),
                "passed on: {passed_on}, at the backend: {reached}"
            );
            Ok(())
        })?;
        for capture in [&at_sender, &at_node, &at_pod] {
            ensure!(capture.broken().is_empty(), "{:#?}", capture.broken());
        }
    }
    Ok(())
}

fn is_tagged(seen: &Seen) -> bool {
    seen.vlan == Some(VLAN)
}
