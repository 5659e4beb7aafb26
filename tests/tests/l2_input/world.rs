//! A node with an agent that is ready, and the sentences that the rows have in common.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::{Agent, Uplink};
use testbed::cluster::Cluster;
use testbed::patience::eventually;
use testbed::runner::{Shared, cluster_row};
use testbed::sockets::http;
use testbed::topology::{Node, Plan};

pub const HEALTH_PORT: u16 = 10256;

/// A cluster that rows share: one node, its agent ready.
#[derive(Clone)]
pub struct World(Arc<Shared<Cluster>>);

impl World {
    pub fn new(clients: u8) -> Self {
        Self::started(clients, &[])
    }

    /// Its agent gets these arguments, too.
    pub fn started(clients: u8, more: &'static [&'static str]) -> Self {
        Self(Shared::new(move || {
            let cluster = bare(clients)?;
            begin(&cluster, |launch| launch.with(more))?.wait_until_ready()?;
            Ok(cluster)
        }))
    }

    pub fn row(&self, name: &str, test: fn(&Cluster) -> Result<()>) -> Trial {
        cluster_row(name, &self.0, test)
    }
}

/// A row that starts its agent itself.
pub fn lone_row(name: &str, test: fn(&Cluster) -> Result<()>) -> Trial {
    cluster_row(name, &Shared::new(|| bare(1)), test)
}

fn bare(clients: u8) -> Result<Cluster> {
    let plan = Plan {
        clients,
        nodes: 1,
        ..Plan::default()
    };
    Cluster::build(&plan, Uplink::Tc)
}

/// Starts an agent on the node.
pub fn begin<'a>(
    cluster: &'a Cluster,
    change: impl FnOnce(testbed::agent::Launch<'a>) -> testbed::agent::Launch<'a>,
) -> Result<Running<'a>> {
    let agent = Agent::begin(&change(cluster.launch(cluster.node(1))))?;
    cluster.agents().push(agent);
    Ok(Running(cluster))
}

pub struct Running<'a>(&'a Cluster);

impl Running<'_> {
    pub fn wait_until_ready(&self) -> Result<()> {
        self.0.agents()[0].wait_until_ready()
    }
}

/// All that the agent has said so far.
pub fn said(cluster: &Cluster) -> Vec<String> {
    cluster.agents()[0].lines()
}

/// Waits until the agent has said all of this in one line.
pub fn await_said(cluster: &Cluster, words: &[&str]) -> Result<()> {
    eventually(&format!("the log says {words:?}"), || {
        let is_said = |line: &String| words.iter().all(|word| line.contains(word));
        ensure!(said(cluster).iter().any(is_said), "it does not");
        Ok(())
    })
}

/// Demands that all probes of the node answer that it is well, asked from the node itself.
pub fn all_probes_are_well(node: &Node) -> Result<()> {
    for path in ["/livez", "/readyz", "/healthz"] {
        let at = SocketAddr::new(node.host.ip.of(Family::V4), HEALTH_PORT);
        let answer = http::fetch(node.netns(), at, path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    Ok(())
}
