//! The agent is killed under traffic; the next one goes on from what is pinned.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::{Connection, ConnectionState, PinDir};
use testbed::cluster::PORT;
use testbed::patience::eventually;
use testbed::pinned::Ids;
use testbed::topology::{Node, Pod};

use crate::traffic::{self, Kept, Served};
use crate::world::{World, lone_row};

/// How long the datapath is without an agent, and how long an agent has begun when it is killed: before it has loaded
/// the programs, while it does, and about when it is ready.
const DEAD_FOR: Duration = Duration::from_millis(500);
const KILLED_AFTER: [u64; 4] = [20, 150, 600, 1200];

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "no request fails when agents are killed, and the next ones go on from what is pinned",
        2,
        death,
    )]
}

/// Connections to echo servers: they stay as they are, those of HTTP come and go.
fn connections(node: &Node) -> Result<BTreeSet<Connection>> {
    let all = PinDir::new(&node.bpffs).open_maps()?.connections()?;
    let is_kept =
        |one: &Connection| one.backend.port() == PORT && one.state == ConnectionState::Established;
    Ok(all.into_iter().filter(is_kept).collect())
}

fn death(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    cluster.start_agents()?;
    let pods = ["p1", "p2", "p1b", "p2b"].map(|name| cluster.pod(name));
    let served = Served::start(world, &pods, &pods[..2])?;
    let mut kept = Kept::open(cluster, &served)?;
    let nodes = &cluster.topology.nodes;
    let all = |of: fn(&Node) -> Result<Ids>| nodes.iter().map(of).collect::<Result<Vec<_>>>();
    let open: Vec<_> = nodes.iter().map(connections).collect::<Result<_>>()?;
    ensure!(
        open.iter().map(BTreeSet::len).sum::<usize>() > 0,
        "no connection is tracked"
    );
    let before = all(Ids::of)?;
    let (count, ()) = traffic::during(cluster, &served, || {
        cluster.kill_agents();
        thread::sleep(DEAD_FOR);
        kept.stay().context("without an agent")?;
        for after in KILLED_AFTER {
            cluster.begin_agents()?;
            thread::sleep(Duration::from_millis(after));
            cluster.kill_agents();
            kept.stay().context("with an agent killed at its start")?;
        }
        cluster.start_agents()?;
        kept.stay().context("with a new agent")?;
        for ((node, before), open) in nodes.iter().zip(&before).zip(&open) {
            let now = Ids::of(node)?;
            ensure!(now == *before, "{now:#?} is not what was {before:#?}");
            // One look may miss an entry, as those of HTTP come and go beside it.
            eventually("all connections are tracked", || {
                let lost: Vec<_> = open.difference(&connections(node)?).cloned().collect();
                ensure!(lost.is_empty(), "lost: {lost:#?}");
                Ok(())
            })?;
        }
        changed_while_dead(world, &served, &pods)
    })?;
    kept.stay_over_tcp().context("after the change")?;
    eprintln!("agents killed {} times: {count}", KILLED_AFTER.len() + 2);
    Ok(())
}

/// One endpoint goes and two come while no agent runs. The one that stays keeps its id, and so do the services.
fn changed_while_dead(world: &World, served: &Served, pods: &[&Pod]) -> Result<()> {
    let cluster = &world.cluster;
    let nodes = &cluster.topology.nodes;
    let before: Vec<_> = nodes.iter().map(Ids::of).collect::<Result<_>>()?;
    cluster.kill_agents();
    served.move_to(world, &pods[1..])?;
    thread::sleep(DEAD_FOR);
    cluster.start_agents()?;
    for name in ["p2b:8080", "p1b:8080", "p2:8080"] {
        world.await_on_nodes(&served.echo, |answer| answer.who() == Some(name))?;
    }
    for (node, before) in nodes.iter().zip(before) {
        let now = Ids::of(node)?;
        ensure!(
            now.services == before.services,
            "{:#?} is not what was {:#?}",
            now.services,
            before.services
        );
        let staying = |pod: &Pod, socket: &SocketAddr| pod.ip.contains(socket.ip());
        for ((service, socket), id) in &before.backends {
            let now = now.backends.get(&(*service, *socket));
            ensure!(
                !staying(pods[1], socket) || now == Some(id),
                "backend {socket} was {id} and is {now:?}"
            );
            ensure!(!staying(pods[0], socket) || now.is_none(), "{socket} stays");
        }
    }
    Ok(())
}
