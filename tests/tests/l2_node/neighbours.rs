//! Next hops that die without a word: an established flow is to reach its client again as soon as through the kernel.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use testbed::address::{Family, Mac};
use testbed::agent::Uplink;
use testbed::ask::{dial, open};
use testbed::cluster::{Cluster, Vip};
use testbed::masquerade;
use testbed::patience::{eventually_within, patient};
use testbed::runner::{self, CannotRun, no_agent};
use testbed::sockets::Protocol;
use testbed::sockets::client::Dial;
use testbed::topology::{Host, Plan};
use testbed::xdp;

use crate::nft;
use crate::site::{deciding, row};

/// The kernel needs 5 s until it probes a stale neighbour, 3 s until it gives it up, and resolves it anew.
const HEALED_WITHIN: Duration = Duration::from_secs(14);
/// What a change of an address may take until it shows.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);

pub fn rows() -> Vec<Trial> {
    let mut rows = vec![
        row(
            "neighbours: by rules of the kernel a dead one is healed",
            Plan::default(),
            |cluster| {
                if !masquerade::available() {
                    return Err(CannotRun(masquerade::MISSING).into());
                }
                let vip = cluster.publish("far", &[cluster.pod("p2")])?;
                nft::install(cluster.node(1), &vip, &[cluster.pod("p2")])?;
                heals(cluster, &vip)
            },
        ),
        row(
            "neighbours: those that somebody else keeps stay as they are",
            Plan::default(),
            kept_stay,
        ),
    ];
    for (name, uplink) in [("xdp", Uplink::Xdp), ("tc", Uplink::Tc)] {
        let name =
            format!("{name}: neighbours: a dead one is healed, and one that moves is followed");
        rows.push(runner::row(name, no_agent(), move || {
            let cluster = Cluster::build(&Plan::default(), uplink)?;
            let healed = || -> Result<()> {
                let vip = cluster.publish("far", &[cluster.pod("p2")])?;
                cluster.start_first_agent()?;
                heals(&cluster, &vip)?;
                follows(&cluster, &vip)
            };
            let healed = match uplink {
                Uplink::Xdp => xdp::takes(&cluster, healed),
                Uplink::Tc => healed(),
            };
            healed.map_err(|error| error.context(cluster.logs()))
        }));
    }
    rows
}

/// What the node's kernel is told of `host`: its address and how sure that is. The host does not ask for the node, so
/// that the node does not learn of it by chance.
fn tell(cluster: &Cluster, host: &Host, family: Family, mac: Mac, state: &str) -> Result<()> {
    let node = &cluster.node(1).host;
    host.netns.ip(&format!(
        "neigh replace {} lladdr {} dev eth0 nud permanent\n",
        node.ip.of(family),
        node.mac
    ))?;
    node.netns.ip(&format!(
        "neigh replace {} lladdr {mac} dev eth0 nud {state}\n",
        host.ip.of(family)
    ))
}

/// Both families at once, each over one established connection.
fn heals(cluster: &Cluster, vip: &Vip) -> Result<()> {
    let neighbour = &cluster.topology.neighbour;
    std::thread::scope(|scope| {
        let each = Family::BOTH.map(|family| {
            scope.spawn(move || -> Result<()> {
                let target = vip.on_node(cluster.node(1), family);
                let opened = eventually_within(Duration::from_secs(10), "the service", || {
                    dial(neighbour, Protocol::Tcp, target)
                        .open()
                        .map_err(|answer| anyhow!("{answer}"))
                });
                let mut connection = opened?;
                ensure!(connection.ask().who().is_some(), "{family}: at first");
                tell(cluster, neighbour, family, Mac::fresh(), "stale")?;
                let began = Instant::now();
                await_answer(neighbour, target, HEALED_WITHIN)
                    .with_context(|| format!("{family}: with a dead next hop"))?;
                eprintln!("{family}: healed after {:.1?}", began.elapsed());
                let answer = connection.ask();
                ensure!(
                    answer.who().is_some(),
                    "{family}: the connection before: {answer}"
                );
                Ok(())
            })
        });
        each.into_iter()
            .try_for_each(|one| one.join().expect("asking does not panic"))
    })
}

/// Asks by new connections, each for a short time, until one is answered.
fn await_answer(client: &Host, target: SocketAddr, within: Duration) -> Result<()> {
    let end = Instant::now() + patient(within);
    let short = Duration::from_millis(500);
    let mut last = None;
    while Instant::now() < end {
        let answer = Dial::new(&client.netns, Protocol::Udp, target)
            .within(short)
            .ask();
        if answer.who().is_some() {
            return Ok(());
        }
        last = Some(answer);
    }
    bail!("no answer within {within:?}: {last:?}")
}

/// A next hop that is at another address, as the kernel has it, is used at once.
fn follows(cluster: &Cluster, vip: &Vip) -> Result<()> {
    let neighbour = &cluster.topology.neighbour;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let mut connection = open(dial(neighbour, Protocol::Tcp, target))?;
        ensure!(connection.ask().who().is_some(), "{family}: at first");
        tell(cluster, neighbour, family, Mac::fresh(), "permanent")?;
        tell(cluster, neighbour, family, neighbour.mac, "permanent")?;
        let began = Instant::now();
        let answer = connection.ask();
        ensure!(
            answer.who().is_some() && began.elapsed() < patient(FOLLOWED_WITHIN),
            "{family}: {answer} after {:?}",
            began.elapsed()
        );
    }
    Ok(())
}

/// Entries of a CNI's overlay are permanent: nothing may make them ask for what nobody answers.
fn kept_stay(cluster: &mut Cluster) -> Result<()> {
    let vip = cluster.publish("far", &[cluster.pod("p2")])?;
    let neighbour = &cluster.topology.neighbour;
    for family in Family::BOTH {
        tell(cluster, neighbour, family, neighbour.mac, "permanent")?;
    }
    cluster.start_agent(&deciding(cluster))?;
    let mut connections = Vec::new();
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        connections.push(open(dial(neighbour, Protocol::Tcp, target))?);
    }
    // The hop is in use for some rounds of the agent.
    let end = Instant::now() + Duration::from_secs(5);
    let maps = PinDir::new(&cluster.node(1).bpffs).open_maps()?;
    while Instant::now() < end {
        for connection in &mut connections {
            let answer = connection.ask();
            ensure!(answer.who().is_some(), "{answer}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let hops = maps.next_hops.keys().count();
    ensure!(
        hops >= 2,
        "the agent learnt of {hops} next hops: nothing was at stake"
    );
    let mut command = cluster.node(1).netns().command("ip")?;
    let output = command
        .args(["neigh", "show", "nud", "permanent"])
        .output()?;
    let list = String::from_utf8(output.stdout)?;
    for family in Family::BOTH {
        let addr: IpAddr = neighbour.ip.of(family);
        ensure!(list.contains(&addr.to_string()), "{addr} is not in {list}");
    }
    Ok(())
}
