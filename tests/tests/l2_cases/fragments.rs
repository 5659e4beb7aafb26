//! Fragments of datagrams that come in another order than they were sent in.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::cluster::Cluster;
use testbed::patience::patient;
use testbed::sockets::client::unique_content;
use testbed::topology::Host;
use testbed::wire::PacketSocket;
use testbed::wire::build::{self, Extra};

use crate::inject::{fresh_port, from_pod};
use crate::world::{World, serve};

const PATIENCE: Duration = Duration::from_secs(2);
/// Three fragments hold it.
const CONTENT: usize = 3000;
const LENGTH: usize = 1400;
const ORDERS: [(&str, [usize; 3]); 3] = [
    ("the last one first", [2, 1, 0]),
    ("the middle one first", [1, 0, 2]),
    ("the first one last", [1, 2, 0]),
];

pub fn rows(world: &World) -> Vec<Trial> {
    let mut rows = Vec::new();
    for (place, backend) in [("local", "p1"), ("remote", "p2")] {
        let name = format!("fragments out of order arrive at a {place} backend");
        rows.push(world.row(name, move |cluster| out_of_order(cluster, backend)));
    }
    rows
}

fn out_of_order(cluster: &Cluster, backend: &str) -> Result<()> {
    let vip = serve(cluster, "out-of-order", &[cluster.pod(backend)])?;
    for family in Family::BOTH {
        let ways: [(&Host, SocketAddr); 2] = [
            (
                cluster.topology.client(),
                vip.on_node(cluster.node(1), family),
            ),
            (cluster.pod("c1"), vip.on_cluster_ip(family)),
        ];
        for (client, target) in ways {
            for (order, places) in ORDERS {
                exchange(client, family, target, places)
                    .with_context(|| format!("{} to {target}, {order}", client.name))?;
            }
        }
    }
    Ok(())
}

/// One datagram, cut and put on the wire by hand, and its echo.
fn exchange(client: &Host, family: Family, to: SocketAddr, order: [usize; 3]) -> Result<()> {
    let from = SocketAddr::new(client.ip.of(family), fresh_port());
    let socket = client.netns.run(|| UdpSocket::bind(from))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patient(PATIENCE)))?;
    let content = unique_content(CONTENT);
    let whole = build::udp(from_pod(client), from, to, Extra::Nothing, &content)?;
    let fragments = build::fragments(&whole, from.port(), LENGTH)?;
    ensure!(
        fragments.len() == order.len(),
        "{} fragments",
        fragments.len()
    );
    let wire = PacketSocket::open(&client.netns, "eth0")?;
    for place in order {
        wire.send(&fragments[place])?;
    }
    let mut room = [0; 2 * CONTENT];
    let length = socket.recv(&mut room).context("no answer")?;
    ensure!(room[..length].ends_with(&content), "another answer");
    Ok(())
}
