//! Ports of one service are services of their own.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::cluster::{Cluster, OTHER_PORT, PORT};
use testbed::manifests::{Endpoints, Service};
use testbed::sockets::Protocol;

use crate::world::{World, await_answer, dial};

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row_beside_xdp(
            "each port of a service leads to the target port of the same name",
            multi_port,
        ),
        world.row(
            "TCP and UDP on one port number are independent",
            same_number,
        ),
    ]
}

fn multi_port(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("multi-port");
    let service = Service::new(&vip.name, vip.ip)
        .port("web", Protocol::Tcp, 80)
        .port("admin", Protocol::Tcp, 81);
    let endpoints = Endpoints::of(&vip.name)
        .port("web", Protocol::Tcp, PORT)
        .port("admin", Protocol::Tcp, OTHER_PORT)
        .pod(cluster.pod("p2"));
    cluster.manifests.apply_endpoints(&endpoints)?;
    cluster.manifests.apply(&service)?;
    for family in Family::BOTH {
        for (port, expected) in [(80, "p2:8080"), (81, "p2:9090")] {
            let target = SocketAddr::new(vip.ip.of(family), port);
            await_answer(cluster.pod("c1"), Protocol::Tcp, target, |answer| {
                answer.who() == Some(expected)
            })?;
        }
    }
    Ok(())
}

fn same_number(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("same-number");
    let endpoints = Endpoints::of(&vip.name)
        .port("t", Protocol::Tcp, PORT)
        .port("u", Protocol::Udp, OTHER_PORT)
        .pod(cluster.pod("p1"));
    cluster.manifests.apply_endpoints(&endpoints)?;
    cluster.manifests.apply(&vip.service())?;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let client = cluster.topology.client();
        await_answer(client, Protocol::Tcp, target, |answer| {
            answer.who() == Some("p1:8080")
        })?;
        await_answer(client, Protocol::Udp, target, |answer| {
            answer.who() == Some("p1:9090")
        })?;
        let again = dial(client, Protocol::Tcp, target).ask();
        ensure!(again.who() == Some("p1:8080"), "TCP after UDP: {again}");
    }
    Ok(())
}
