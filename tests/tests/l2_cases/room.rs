//! More flows than there is room for: none goes for an open connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use proxy_common::abi::FlowKey;
use proxy_common::addr::{Be16, Ip4};
use testbed::address::Family;
use testbed::agent::{Agent, Tables, Uplink};
use testbed::cluster::Cluster;
use testbed::patience::{eventually, is_slow};
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::topology::{Host, Node, Plan};

use crate::serving::Sample;
use crate::world::{World, await_answer, dial, open, who};

/// In each family room for 256 connections, and for 512 flows of datagrams, which is the least.
const TABLES: Tables = Tables {
    flows: 256,
    backends: 64,
    services: 64,
};
const CONNECTIONS: usize = 256;
const DATAGRAMS: usize = 512;
/// Connections that nobody uses meanwhile.
const IDLE: usize = 100;
/// How often what there is room for comes and goes.
const TIMES: usize = 4;
const TIMES_OF_SLOW: usize = 2;
/// A client gives up after this time, and sends its SYN once: sent again, it might be the one that may try.
const REFUSED: Duration = Duration::from_millis(700);
/// Longer than any flow is kept, in jiffies of at most 1000 a second.
const LONG_AGO: u32 = 100_000 * 1000;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let [closed, datagrams, full, silent] =
        [(); 4].map(|()| World::without_agents(uplink, Plan::default()));
    vec![
        closed.row(
            "open connections outlive any number of closed ones",
            many_closed,
        ),
        datagrams.row(
            "open connections outlive any number of answered datagrams",
            many_datagrams,
        ),
        full.row(
            "a full table keeps its connections, refuses others, and says so",
            is_full,
        ),
        silent.row(
            "a connection that ended without a word leaves its table",
            left_in_silence,
        ),
    ]
}

fn start(cluster: &Cluster) -> Result<()> {
    let agent = Agent::begin(&cluster.launch(cluster.node(1)).with_tables(TABLES))?;
    cluster.agents().push(agent);
    cluster.agents()[0].wait_until_ready()
}

fn times() -> usize {
    if is_slow() { TIMES_OF_SLOW } else { TIMES }
}

/// A connection, its name, and who serves it.
struct Kept {
    connection: Conversation,
    name: String,
    server: String,
}

impl Kept {
    fn open(client: &Host, target: SocketAddr) -> Result<Self> {
        let mut connection = open(dial(client, Protocol::Tcp, target))?;
        let name = format!("from port {} to {target}", connection.port()?);
        let server = who(connection.ask()).with_context(|| name.clone())?;
        Ok(Self {
            connection,
            name,
            server,
        })
    }

    fn goes_on(&mut self) -> Result<()> {
        let now = who(self.connection.ask()).with_context(|| self.name.clone())?;
        ensure!(
            now == self.server,
            "{}: {now} serves it, not {}",
            self.name,
            self.server
        );
        Ok(())
    }
}

/// Opens idle connections of each family to a local and a remote backend, does what `meanwhile` says to the same targets, and demands
/// that all go on.
fn idle(cluster: &Cluster, meanwhile: impl Fn(&Host, SocketAddr) -> Result<()>) -> Result<()> {
    let vip = cluster.publish("served", &[cluster.pod("p1"), cluster.pod("p2")])?;
    start(cluster)?;
    let (node, client) = (cluster.node(1), cluster.topology.client());
    let mut kept = Vec::new();
    for family in Family::BOTH {
        let target = vip.on_node(node, family);
        await_answer(client, Protocol::Tcp, target, |answer| {
            answer.who().is_some()
        })?;
        for _ in 0..IDLE {
            kept.push(Kept::open(client, target)?);
        }
    }
    for family in Family::BOTH {
        meanwhile(client, vip.on_node(node, family))?;
    }
    let mut lost = Vec::new();
    for one in &mut kept {
        if let Err(error) = one.goes_on() {
            lost.push(format!("{error:#}"));
        }
    }
    ensure!(
        lost.is_empty(),
        "{} of {} idle connections are lost: {}",
        lost.len(),
        kept.len(),
        lost.join("; ")
    );
    Ok(())
}

fn many_closed(cluster: &Cluster) -> Result<()> {
    idle(cluster, |client, target| {
        for number in 0..times() * CONNECTIONS {
            who(dial(client, Protocol::Tcp, target).ask())
                .with_context(|| format!("connection {number} to {target}"))?;
        }
        Ok(())
    })
}

fn many_datagrams(cluster: &Cluster) -> Result<()> {
    idle(cluster, |client, target| {
        await_answer(client, Protocol::Udp, target, |answer| {
            answer.who().is_some()
        })?;
        for number in 0..times() * DATAGRAMS {
            let mut flow = open(dial(client, Protocol::Udp, target))?;
            // The second datagram confirms it.
            for _ in 0..2 {
                who(flow.ask()).with_context(|| format!("flow {number} to {target}"))?;
            }
        }
        Ok(())
    })
}

fn is_full(cluster: &Cluster) -> Result<()> {
    let vip = cluster.publish("served", &[cluster.pod("p1"), cluster.pod("p2")])?;
    start(cluster)?;
    let (node, client) = (cluster.node(1), cluster.topology.client());
    let target = vip.on_node(node, Family::V4);
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who().is_some()
    })?;
    let refusals = || Sample::take(node)?.dropped("table-full");
    ensure!(refusals()? == 0.0, "refused before it is full");
    let mut kept = Vec::new();
    // The first for which there is no room goes on among the new ones; those after it do not begin. About once a second one may try.
    let mut tries = 0;
    while kept.len() < CONNECTIONS - 1 || refusals()? == 0.0 {
        tries += 1;
        ensure!(
            tries <= CONNECTIONS + 16,
            "of {tries} connections {} are open, with room for {CONNECTIONS}, and {} packets were refused",
            kept.len(),
            refusals()?
        );
        let quick = dial(client, Protocol::Tcp, target).within(REFUSED);
        if let Ok(mut connection) = quick.open() {
            let server = who(connection.ask())?;
            kept.push(Kept {
                name: format!("connection {}", kept.len()),
                connection,
                server,
            });
        }
    }
    for one in &mut kept {
        one.goes_on()?;
    }
    // Neither the other family's connections nor datagrams want of it.
    who(dial(client, Protocol::Tcp, vip.on_node(node, Family::V6)).ask())?;
    who(dial(client, Protocol::Udp, target).ask())?;
    // Those that are closed make room.
    kept.drain(..kept.len() / 4);
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who().is_some()
    })?;
    for _ in 0..kept.len() / 8 {
        kept.push(Kept::open(client, target)?);
    }
    kept.iter_mut().try_for_each(Kept::goes_on)
}

fn left_in_silence(cluster: &Cluster) -> Result<()> {
    let vip = cluster.publish("served", &[cluster.pod("p1"), cluster.pod("p2")])?;
    start(cluster)?;
    let (node, client) = (cluster.node(1), cluster.topology.client());
    let target = vip.on_node(node, Family::V4);
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who().is_some()
    })?;
    let mut kept = Kept::open(client, target)?;
    kept.goes_on()?;
    cluster.kill_agents();
    let silent = add_silent(node, kept.connection.port()?)?;
    cluster.agents().clear();
    start(cluster)?;
    eventually("the connection's entry leaves", || {
        let flows = PinDir::new(&node.bpffs).open_maps()?.v4.flows;
        ensure!(flows.get(&silent, 0).is_err(), "{silent:?} is there");
        Ok(())
    })?;
    kept.goes_on()
}

/// The entry of a connection like the one of that port, of which nothing was seen for long.
fn add_silent(node: &Node, port: u16) -> Result<FlowKey<Ip4>> {
    let mut flows = PinDir::new(&node.bpffs).open_maps()?.v4.flows;
    let all = flows.entries()?;
    let of_client = all.iter().find(|(key, _)| key.tuple.sport.get() == port);
    let (mut key, mut flow) = *of_client.context("the connection is not confirmed")?;
    key.tuple.sport = Be16::new(1);
    flow.last_seen = flow.last_seen.earlier(LONG_AGO);
    flows.insert(key, flow, 0)?;
    Ok(key)
}
