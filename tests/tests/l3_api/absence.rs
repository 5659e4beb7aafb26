//! No API server at the agent's start: what is pinned goes on, and what is new waits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::{Agent, Source};
use testbed::answer::Answer;
use testbed::ask::{dial, open, who};
use testbed::patience::{eventually, eventually_within};
use testbed::sockets::{Protocol, http};
use testbed::topology::Node;

use crate::world::{World, apply_endpoints_at, lone_row, slow_row};

/// The agent waits two minutes for a word, and then as long as between any two attempts.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(150);

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row("an agent comes up before its API server", 1, comes_up),
        lone_row(
            "an agent that starts without its API server keeps what is pinned",
            1,
            adopts,
        ),
        lone_row(
            "of several API servers the one is asked that answers",
            1,
            fails_over,
        ),
        slow_row(
            "an API server that falls silent is given up",
            1,
            falls_silent,
        ),
    ]
}

fn probe(node: &Node, path: &str) -> Result<(u16, String)> {
    let at = (node.host.ip.v4, 10256).into();
    let answer = http::fetch(node.netns(), at, path)?;
    Ok((answer.status, answer.body))
}

/// Alive and eligible, as a restart would not help; not ready.
fn waits(node: &Node) -> Result<()> {
    for path in ["/livez", "/healthz"] {
        let (status, body) = probe(node, path)?;
        ensure!(status == 200, "{path}: {status} {body}");
    }
    let (status, body) = probe(node, "/readyz")?;
    ensure!(status == 503, "/readyz: {status} {body}");
    Ok(())
}

fn comes_up(world: &World) -> Result<()> {
    let node = world.cluster.node(1);
    let vip = world.publish("awaited", &[world.cluster.pod("p1")])?;
    world.server.stop();
    world.cluster.begin_agents()?;
    world.await_said(&["cannot follow Services"])?;
    eventually("the agent answers probes", || waits(node))?;
    world.await_on_nodes(&vip, |answer| *answer == Answer::Refused)?;
    world.resume_server()?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1:8080"))?;
    eventually("the agent is ready", || {
        let (status, body) = probe(node, "/readyz")?;
        ensure!(status == 200, "{status} {body}");
        Ok(())
    })
}

fn adopts(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    cluster.start_agents()?;
    let vip = world.serve("pinned", &[cluster.pod("p1")])?;
    let ask = |family| {
        let node_port = vip.on_node(cluster.node(1), family);
        dial(cluster.topology.client(), Protocol::Tcp, node_port)
    };
    let mut connections = Vec::new();
    for family in Family::BOTH {
        connections.push(open(ask(family))?);
        let inside = dial(cluster.pod("c1"), Protocol::Tcp, vip.on_cluster_ip(family));
        connections.push(open(inside)?);
    }
    cluster.kill_agents();
    world.server.stop();
    cluster.begin_agents()?;
    world.await_said(&["taking over the maps"])?;
    world.await_said(&["cannot follow Services"])?;
    eventually("the agent answers probes", || waits(cluster.node(1)))?;
    for connection in &mut connections {
        who(connection.ask()).context("a connection from before")?;
    }
    for family in Family::BOTH {
        who(ask(family).ask()).context("a new connection")?;
    }
    world.resume_server()?;
    world.apply_endpoints(&vip, &vip.endpoints(&[cluster.pod("p1b")]))?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1b:8080"))?;
    for connection in &mut connections {
        let who = who(connection.ask()).context("a connection from before")?;
        ensure!(who == "p1", "it moved to {who}");
    }
    Ok(())
}

fn fails_over(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let second = world.second_server()?;
    let servers = Source::ApiServers(vec![world.server.url(), second.url()]);
    world.server.stop();
    let launch = cluster.launch(cluster.node(1)).following(&servers);
    let pods = ["p1", "p1b"].map(|name| cluster.pod(name));
    let vip = cluster.vip("served-by-several");
    let api = world.api_of(&second);
    apply_endpoints_at(api, &vip, &vip.endpoints(&pods[..1]))?;
    api.apply(&vip.service().object())?;
    let agent = Agent::begin(&launch)?;
    cluster.agents().push(agent);
    world
        .await_on_nodes(&vip, |answer| answer.who() == Some("p1:8080"))
        .context("from the second server")?;
    world.resume_server()?;
    second.stop();
    world.apply_endpoints(&vip, &vip.endpoints(&pods[1..]))?;
    world
        .await_on_nodes(&vip, |answer| answer.who() == Some("p1b:8080"))
        .context("from the first server")
}

/// Its host is gone without a word, and another one has its address.
fn falls_silent(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    cluster.start_agents()?;
    let vip = world.serve("silent", &[cluster.pod("p1")])?;
    world.server.script("silence")?;
    world.apply_endpoints(&vip, &vip.endpoints(&[cluster.pod("p1b")]))?;
    let began = Instant::now();
    eventually_within(GIVEN_UP_WITHIN, "the change arrives", || {
        let target = vip.on_node(cluster.node(1), Family::V4);
        let answer = dial(cluster.topology.client(), Protocol::Tcp, target).ask();
        ensure!(answer.who() == Some("p1b:8080"), "{answer}");
        Ok(())
    })?;
    eprintln!(
        "a change after a silence arrived after {:?}",
        began.elapsed()
    );
    Ok(())
}
