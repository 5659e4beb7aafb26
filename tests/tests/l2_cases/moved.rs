//! A service's addresses move from kube-proxy's rules to Portside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tests::address::{Family, Pair};
use tests::agent::{self, Uplink};
use tests::cluster::Cluster;
use tests::kube_proxy;
use tests::masquerade;
use tests::sockets::Protocol;
use tests::topology::{Host, Plan};

use crate::world::{World, dial, open, who};

/// Nobody's on any segment: the router knows the way.
const ROUTED: Pair = Pair::new([203, 0, 113, 10], [0x2001, 0xdb8, 0x50, 0, 0, 0, 0, 10]);
pub fn rows_of_takeovers(uplink: Uplink) -> Vec<Trial> {
    let world = World::without_agents(uplink, Plan::default());
    let missing = (!masquerade::available()).then_some(masquerade::MISSING);
    vec![world.row_unless(
        missing,
        "connections that kube-proxy translates to any address of a service outlive the switch",
        taken_over,
    )]
}

/// From outside, a pod and the node itself, to the cluster address, a load balancer's, and a node port.
fn taken_over(cluster: &Cluster) -> Result<()> {
    let (node, pods) = (cluster.node(1), [cluster.pod("p1"), cluster.pod("p2")]);
    let vip = cluster.vip("taken-over").behind(ROUTED);
    kube_proxy::install_as(node, kube_proxy::TABLE, &vip, &pods)?;
    let mut connections = Vec::new();
    for family in Family::BOTH {
        let (external, via) = (vip.on_external(family).ip(), node.host.ip.of(family));
        let route = format!("route replace {external} via {via}\n");
        cluster.topology.router.netns.ip(&route)?;
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
    std::thread::sleep(IDLE);
    go_on("after a while")
}

/// Longer than the coarse step of time at which flows are renewed.
const IDLE: Duration = Duration::from_millis(1500);
