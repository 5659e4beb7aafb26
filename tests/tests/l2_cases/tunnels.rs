//! Nodes that reach each other's pods by a device without an Ethernet header: what the matrix does not ask of each kind. On a cluster of
//! its own for each, whose tunnel is narrower than the pods know.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::sockets::Protocol;
use testbed::sockets::client::unique_content;
use testbed::sockets::echo::EchoServer;
use testbed::topology::{Host, Joined, Plan, Pod, Tunnel};
use testbed::wire::Capture;

use crate::mtu::{BULK, upload};
use crate::world::{World, await_everywhere, dial, open, serve};

/// Narrower than what pods send by themselves.
const NARROW: u16 = 1360;
/// Narrower still; IPv6 takes no less than 1280.
const NARROWER: u16 = 1290;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    Tunnel::ALL
        .into_iter()
        .flat_map(|tunnel| rows_of(uplink, tunnel))
        .collect()
}

fn rows_of(uplink: Uplink, tunnel: Tunnel) -> Vec<Trial> {
    let plan = Plan {
        joined: Joined::Tunnel(tunnel),
        overlay_mtu: NARROW,
        ..Plan::default()
    };
    let world = World::of(uplink, plan);
    let row = |name: &str, test: fn(&Cluster) -> Result<()>| {
        world.row_unless(tunnel.missing(), format!("{tunnel}: {name}"), test)
    };
    vec![
        row(
            "an upload to a backend behind it fits through it",
            |cluster| upload(cluster, cluster.pod("p2")),
        ),
        row(
            "an upload from a client behind it fits through a narrow pod link",
            upload_from_behind,
        ),
        row("downloads and uploads both ways arrive whole", bulk),
        row("a client behind it is refused at once", refused),
        row("a next connection goes by the same way", again),
    ]
}

/// The node port at the first node's address in the tunnel: the packets come in by it.
fn by_tunnel(cluster: &Cluster, vip: &Vip, family: Family) -> SocketAddr {
    let own = cluster.node(1).address_towards_other_pods();
    SocketAddr::new(own.of(family), vip.node_port)
}

fn upload_from_behind(cluster: &Cluster) -> Result<()> {
    let pod = cluster.node(1).add_pod_behind("narrow", NARROWER)?;
    let _server = EchoServer::start(&pod, PORT)?;
    let vip = serve(cluster, "narrow", &[&pod])?;
    let client: &Pod = cluster.pod("c2");
    for family in Family::BOTH {
        let target = by_tunnel(cluster, &vip, family);
        let capture = Capture::start(&client.netns, "eth0")?;
        let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
        ensure!(answer.who().is_some(), "{target}: {answer}");
        let is_about_the_service = capture
            .packets()
            .into_iter()
            .filter_map(|seen| seen.embedded())
            .any(|about| about.to() == Some(target));
        ensure!(is_about_the_service, "no ICMP error named {target}");
    }
    Ok(())
}

/// Large segments, as the tunnel's ends put them together.
fn bulk(cluster: &Cluster) -> Result<()> {
    let far = serve(cluster, "far", &[cluster.pod("p2")])?;
    let near = serve(cluster, "near", &[cluster.pod("p1")])?;
    for family in Family::BOTH {
        let outside: &Host = cluster.topology.client();
        for (client, target) in [
            (outside, far.on_node(cluster.node(1), family)),
            (cluster.pod("c1"), far.on_cluster_ip(family)),
            (&cluster.node(1).host, far.on_cluster_ip(family)),
            (cluster.pod("c2"), by_tunnel(cluster, &near, family)),
            (cluster.pod("c2"), by_tunnel(cluster, &far, family)),
        ] {
            let answer = open(dial(client, Protocol::Tcp, target))?.download(BULK);
            ensure!(answer.who().is_some(), "down from {target}: {answer}");
            let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
            ensure!(answer.who().is_some(), "up to {target}: {answer}");
        }
    }
    Ok(())
}

fn refused(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "emptied", &[cluster.pod("p1")])?;
    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let target = by_tunnel(cluster, &vip, family);
            let answer = dial(cluster.pod("c2"), protocol, target).ask();
            ensure!(answer == Answer::Refused, "{protocol} {target}: {answer}");
        }
    }
    Ok(())
}

/// More packets than a flow's first ones, so that the fast path carries them.
fn again(cluster: &Cluster) -> Result<()> {
    let far = serve(cluster, "far", &[cluster.pod("p2")])?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let outside: &Host = cluster.topology.client();
            for (client, target) in [
                (outside, far.on_node(cluster.node(1), family)),
                (&cluster.node(1).host, far.on_node(cluster.node(1), family)),
                (cluster.pod("c2"), by_tunnel(cluster, &far, family)),
            ] {
                for _ in 0..10 {
                    let answer = dial(client, protocol, target).ask();
                    ensure!(answer.who().is_some(), "{protocol} {target}: {answer}");
                }
            }
        }
    }
    Ok(())
}
