//! The agent's commands about a datapath that carries traffic, and the one that takes it down.

use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use proxy_common::abi::VERSION;
use tests::address::Family;
use tests::agent::Uplink;
use tests::answer::Answer;
use tests::cli;
use tests::cluster::{Cluster, Vip};
use tests::patience::eventually;
use tests::pinned::{self, directory_of_version};
use tests::sockets::Protocol;
use tests::sockets::client::Conversation;
use tests::topology::Plan;

use crate::world::{World, await_answer, await_everywhere, dial, open, serve, who};

pub fn rows(world: &World) -> Vec<Trial> {
    vec![world.row("the commands show what the maps hold", shown)]
}

/// What takes the datapath down needs a cluster of its own.
pub fn rows_of_cleanup(uplink: Uplink) -> Vec<Trial> {
    vec![World::of(uplink, Plan::default()).row(
        "cleanup takes down the datapath, and a new agent brings it back",
        cleaned_up,
    )]
}

fn shown(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "shown", &[cluster.pod("p1")])?;
    let mut connections = open_from_the_pod(cluster, &vip)?;
    let node = cluster.node(1);
    // The names follow the maps by a moment.
    eventually("the service has its name", || {
        let node_ports = cli::ask(node, &["get", "nodeports", "-A"])?;
        ensure!(node_ports.contains(&vip.name), "{node_ports}");
        Ok(())
    })?;

    let services = cli::ask(node, &["get", "services", "-A", "-o", "json"])?;
    let backends = cli::ask(node, &["get", "backends", "-A", "-o", "json"])?;
    let node_ports = cli::ask(node, &["get", "nodeports", "-A"])?;
    let flows = cli::ask(node, &["flows"])?;
    for text in [&services, &backends] {
        serde_json::from_str::<serde_json::Value>(text).with_context(|| text.clone())?;
    }
    for family in Family::BOTH {
        let frontend = vip.ip.of(family).to_string();
        let backend = cluster.pod("p1").ip.of(family).to_string();
        ensure!(services.contains(&frontend), "{frontend}: {services}");
        ensure!(backends.contains(&backend), "{backend}: {backends}");
        let client = cluster.pod("c1").ip.of(family).to_string();
        let flow = |line: &str| {
            [&client, &frontend, &backend, &vip.name]
                .iter()
                .all(|part| line.contains(part.as_str()))
        };
        ensure!(flows.lines().any(flow), "{client} to {frontend}: {flows}");
    }
    let node_port = vip.node_port.to_string();
    let of_the_service = |line: &str| line.contains(&vip.name) && line.contains(&node_port);
    ensure!(node_ports.lines().any(of_the_service), "{node_ports}");

    // Nobody is on this port: a packet that no service takes, and a reason for it.
    let refused = cluster.vip("refused");
    cluster.manifests.apply(&refused.service())?;
    let target = refused.on_cluster_ip(Family::V4);
    await_answer(cluster.pod("c1"), Protocol::Tcp, target, |answer| {
        *answer == Answer::Refused
    })?;
    let drops = cli::ask(node, &["drops"])?;
    ensure!(drops.contains("refused"), "{drops}");
    let maps = cli::ask(node, &["maps"])?;
    ensure!(maps.contains("SERVICES"), "{maps}");
    for connection in &mut connections {
        who(connection.ask())?;
    }
    Ok(())
}

fn cleaned_up(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "cleaned", &[cluster.pod("p1")])?;
    cluster.stop_agents();
    for connection in &mut open_from_the_pod(cluster, &vip)? {
        who(connection.ask()).context("with the agent stopped")?;
    }
    // One is what an agent of another version left.
    let own = PinDir::new(&cluster.node(2).bpffs);
    let older = directory_of_version(cluster.node(2), VERSION - 1);
    fs::rename(own.root(), older).context("giving the pins an older name")?;
    for node in &cluster.topology.nodes {
        cli::ask(node, &["cleanup"])?;
        let left = pinned::directories(node)?;
        ensure!(left.is_empty(), "pins of {}: {left:?}", node.name());
        let mut links = node.netns().command("ip")?;
        links.args(["-details", "link", "show"]);
        let links = cli::output(links)?;
        ensure!(!links.contains("xdp"), "{links}");
    }
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let answer = dial(cluster.topology.client(), Protocol::Tcp, target).ask();
        ensure!(
            answer.who().is_none(),
            "{family}: {answer} after the clean-up"
        );
    }
    // A second time finds nothing, and says so by no error.
    cli::ask(cluster.node(1), &["cleanup"])?;
    cluster.start_first_agent()?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1:8080"))
}

/// A connection in each family from a pod of the first node to the cluster address.
fn open_from_the_pod(cluster: &Cluster, vip: &Vip) -> Result<Vec<Conversation>> {
    let client = cluster.pod("c1");
    Family::BOTH
        .into_iter()
        .map(|family| {
            let target = vip.on_cluster_ip(family);
            let mut connection = open(dial(client, Protocol::Tcp, target))?;
            who(connection.ask()).with_context(|| format!("{family} {target}"))?;
            Ok(connection)
        })
        .collect()
}
