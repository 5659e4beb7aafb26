//! A cluster whose uplinks are as the kernel makes them, and the sentences that the cases have in common.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use testbed::address::Family;
use testbed::agent::{self, Agent, Launch, Uplink};
use testbed::ask::await_answer;
use testbed::cluster::{Cluster, Vip};
use testbed::netns::Netns;
use testbed::runner::{self, no_agent};
use testbed::sockets::Protocol;
use testbed::sockets::client::Dial;
use testbed::topology::{Host, Node, Plan};

/// A row on a cluster of its own, whose agents it starts; its failure shows their logs.
pub fn row(
    name: impl fmt::Display,
    plan: Plan,
    test: impl FnOnce(&mut Cluster) -> Result<()> + Send + 'static,
) -> Trial {
    runner::row(name.to_string(), no_agent(), move || {
        let mut cluster = bare(plan)?;
        test(&mut cluster).map_err(|error| error.context(cluster.logs()))
    })
}

/// Nothing is done to its uplinks that would let XDP send by them.
fn bare(plan: Plan) -> Result<Cluster> {
    let plan = Plan {
        wire_like_uplinks: false,
        ..plan
    };
    Cluster::build_as_planned(&plan, Uplink::Tc)
}

/// An agent of the first node that decides by itself.
pub fn deciding(cluster: &Cluster) -> Launch<'_> {
    cluster.launch(cluster.node(1)).with_xdp("auto")
}

/// Waits until the target answers over TCP and UDP.
pub fn serves(client: &Host, target: SocketAddr) -> Result<()> {
    for protocol in Protocol::BOTH {
        await_answer(client, protocol, target, |answer| answer.who().is_some())?;
    }
    Ok(())
}

/// Longer than a busy machine stands still.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Demands that the target answers every one of `count` requests over each protocol.
pub fn never_fails(client: &Netns, target: SocketAddr, count: usize) -> Result<()> {
    for protocol in Protocol::BOTH {
        for number in 0..count {
            let answer = Dial::new(client, protocol, target).within(PATIENCE).ask();
            ensure!(
                answer.who().is_some(),
                "{protocol} {target} from {}, request {number}: {answer}",
                client.name()
            );
        }
    }
    Ok(())
}

/// The node port of `vip` at the first node, in both families.
pub fn node_port(cluster: &Cluster, vip: &Vip) -> [SocketAddr; 2] {
    Family::BOTH.map(|family| vip.on_node(cluster.node(1), family))
}

/// The first agent has said something with all these words in one line.
pub fn has_said(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let agents = cluster.agents();
    let mut lines = agents
        .first()
        .map(Agent::lines)
        .unwrap_or_default()
        .into_iter();
    ensure!(
        lines.any(|line| words.iter().all(|word| line.contains(word))),
        "not said: {words:?}"
    );
    Ok(())
}

/// What doctor says of the devices of `node`, with these arguments.
pub fn doctor(node: &Node, arguments: &[&str]) -> Result<Report> {
    let mut command = node.netns().command(agent::binary().context("no agent")?)?;
    let output = command
        .args(["doctor", "--output", "json", "--bpffs"])
        .arg(&node.bpffs)
        .arg("--state-dir")
        .arg(&node.state)
        .args(arguments)
        .output()?;
    let report = serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("doctor printed no report: {said}")
    })?;
    Ok(Report(report))
}

/// A report of doctor.
pub struct Report(Value);

impl Report {
    /// Demands a check of this name with this verdict, whose text has all these words.
    pub fn says(&self, name: &str, verdict: &str, words: &[&str]) -> Result<()> {
        let checks = self.0["checks"].as_array().context("no checks")?;
        let of_the_name: Vec<_> = checks.iter().filter(|one| one["name"] == name).collect();
        let fits = |check: &&Value| {
            let text = format!("{} {}", check["found"], check["follows"]);
            check["verdict"] == verdict && words.iter().all(|word| text.contains(word))
        };
        ensure!(
            of_the_name.iter().any(fits),
            "no check of {name} that is {verdict} and says {words:?} among {of_the_name:#?}"
        );
        Ok(())
    }
}
