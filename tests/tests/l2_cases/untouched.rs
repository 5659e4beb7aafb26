//! Traffic of no service passes as if nobody were there, and nothing leaves the node broken.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::cluster::{Cluster, PORT};
use testbed::sockets::Protocol;
use testbed::sockets::echo::EchoServer;
use testbed::sockets::ping::ping;
use testbed::topology::Host;
use testbed::wire::{Capture, Checksums};

use crate::inject::fresh_port;
use crate::world::{World, await_answer, dial, seen_as_itself, serve, who};

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row_beside_xdp("traffic of no service passes untouched", no_service),
        world.row("every checksum on the wire is right", checksums),
        world.row("a pod that appears later is served and serves", late_pod),
    ]
}

fn no_service(cluster: &Cluster) -> Result<()> {
    let client = cluster.topology.client();
    let _server = EchoServer::start(client, PORT)?;
    let (c1, p1, p2) = (cluster.pod("c1"), cluster.pod("p1"), cluster.pod("p2"));
    let (node1, node2) = (&cluster.node(1).host, &cluster.node(2).host);
    let pairs: [(&Host, &Host); 8] = [
        (c1, p1),
        (c1, p2),
        (c1, node1),
        (c1, node2),
        (c1, client),
        (client, p1),
        (client, node1),
        (node1, node2),
    ];
    for (from, to) in pairs {
        for family in Family::BOTH {
            let name = || format!("{} to {} over {family}", from.name, to.name);
            ping(&from.netns, to.ip.of(family)).with_context(name)?;
            let target = SocketAddr::new(to.ip.of(family), PORT);
            for protocol in Protocol::BOTH {
                // A port of which a service flow to the same pod is not over (UDP: idle) is a known limit
                // (docs/architecture.md): no other row has this one.
                let answer = dial(from, protocol, target).from_port(fresh_port()).ask();
                let server = seen_as_itself(answer, from, family).with_context(name)?;
                ensure!(server == to.name, "{}: answered by {server}", name());
            }
        }
    }
    Ok(())
}

fn checksums(cluster: &Cluster) -> Result<()> {
    let client = cluster.topology.client();
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, "sound", &[cluster.pod(backend)])?;
        let places: [&Host; 3] = [client, cluster.pod("c1"), cluster.pod(backend)];
        // Between two veths a checksum that nobody finishes is checked by nobody.
        places.iter().try_for_each(|host| host.finish_checksums())?;
        let captures = places.map(|host| Capture::start(&host.netns, "eth0"));
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                who(dial(client, protocol, vip.on_node(cluster.node(1), family)).ask())?;
                who(dial(cluster.pod("c1"), protocol, vip.on_cluster_ip(family)).ask())?;
            }
        }
        for (host, capture) in places.iter().zip(captures) {
            let capture = capture?;
            capture.find("a checksum that is finished", |seen| {
                seen.checksums == Checksums::Right
            })?;
            let broken = capture.broken();
            ensure!(
                broken.is_empty(),
                "at {}, with {backend} as backend: {broken:#?}",
                host.name
            );
        }
    }
    Ok(())
}

fn late_pod(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "late", &[cluster.pod("p2")])?;
    let late = cluster.node(1).add_pod("late")?;
    let _server = EchoServer::start(&late, PORT)?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let target = vip.on_cluster_ip(family);
            let answer = await_answer(&late, protocol, target, |answer| answer.who().is_some())?;
            seen_as_itself(answer, &late, family)?;
        }
    }
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[&late]))?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for (client, target) in [
                (
                    cluster.topology.client(),
                    vip.on_node(cluster.node(1), family),
                ),
                (
                    cluster.topology.client(),
                    vip.on_node(cluster.node(2), family),
                ),
                (&late, vip.on_cluster_ip(family)),
            ] {
                await_answer(client, protocol, target, |answer| {
                    answer.who() == Some("late:8080")
                })?;
            }
        }
    }
    Ok(())
}
