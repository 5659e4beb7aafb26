//! Endpoints, services and agents come and go under running traffic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::{Answer, Tally, tally};
use testbed::cluster::{Cluster, Vip};
use testbed::meanwhile::Meanwhile;
use testbed::one_cpu::OneCpu;
use testbed::patience::{eventually, pause};
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::topology::{Host, Plan, Pod};

use crate::world::{World, await_everywhere, dial, open, serve, who};

const PODS: [&str; 4] = ["p1", "p1b", "p2", "p2b"];

/// Between the requests of a client that asks all the time.
const PAUSE: Duration = Duration::from_millis(2);

/// How long each number of backends stays in force.
const STEP: Duration = Duration::from_millis(150);

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "an established connection survives its endpoint and its service",
            survival,
        ),
        world.row(
            "scaling up and down under traffic fails no request",
            scaling,
        ),
        world.row("a UDP flow moves when its endpoint is removed", udp_moves),
        world.row("an answer that comes late reaches its client", late_answers),
        world.row("a deleted service is served no more", deletion),
    ]
}

/// What stops its agent needs a cluster of its own.
pub fn rows_without_agent(uplink: Uplink) -> Vec<Trial> {
    vec![World::with_first_agent(uplink, Plan::default()).row(
        "without its agent the datapath goes on, and a restarted one catches up",
        agent_restarted,
    )]
}

fn survival(cluster: &Cluster) -> Result<()> {
    let vip = serve(
        cluster,
        "surviving",
        &[cluster.pod("p1"), cluster.pod("p2")],
    )?;
    // Enough connections that each endpoint has some of them.
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.extend(open_everywhere(cluster, &vip, Protocol::Tcp)?);
    }
    let mut all_answer = |when: &str| {
        let mut answers = connections
            .iter_mut()
            .map(|(connection, name)| (connection.ask(), name));
        match answers.find(|(answer, _)| answer.who().is_none()) {
            Some((answer, name)) => bail!("{name}, {when}: {answer}"),
            None => Ok(()),
        }
    };
    all_answer("at first")?;
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p1b")]))?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1b:8080"))?;
    all_answer("with its endpoint removed")?;
    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)?;
    all_answer("with no endpoint left")?;
    cluster.manifests.delete(&vip.name)?;
    // One that comes later is programmed: so the deletion is, too.
    serve(cluster, "later", &[cluster.pod("p1")])?;
    all_answer("with its service deleted")
}

fn scaling(cluster: &Cluster) -> Result<()> {
    let pods = PODS.map(|name| cluster.pod(name));
    let vip = serve(cluster, "scaled", &pods[..1])?;
    let done = AtomicBool::new(false);
    let tallies = thread::scope(|scope| {
        let traffic = [
            (
                Family::V4,
                cluster.topology.client(),
                vip.on_node(cluster.node(1), Family::V4),
            ),
            (Family::V6, cluster.pod("c2"), vip.on_cluster_ip(Family::V6)),
        ];
        let running = traffic.map(|(family, client, target)| {
            let asking = || !done.load(Ordering::Relaxed);
            let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().cycle();
            // With a pause, or its flows would take the place of another row's that wait for their first reply.
            let ask = move |protocol| {
                thread::sleep(PAUSE);
                dial(client, protocol, target).ask()
            };
            (
                family,
                scope.spawn(move || {
                    let _on = OneCpu::stay();
                    tally(protocol.take_while(|_| asking()).map(ask))
                }),
            )
        });
        let scaled = scale(cluster, &vip, &pods);
        done.store(true, Ordering::Relaxed);
        let tallies =
            running.map(|(family, thread)| (family, thread.join().expect("asking does not panic")));
        scaled.map(|()| tallies)
    })?;
    for (family, tally) in tallies {
        let served = |tally: &Tally| {
            tally
                .keys()
                .all(|who| PODS.iter().any(|pod| *who == format!("{pod}:8080")))
        };
        ensure!(served(&tally), "{family}: {tally:?}");
        ensure!(
            tally.len() == PODS.len(),
            "{family}: not every endpoint was ever asked: {tally:?}"
        );
    }
    Ok(())
}

/// Up and down in steps; each step up is seen to be in force before the next.
fn scale(cluster: &Cluster, vip: &Vip, pods: &[&Pod]) -> Result<()> {
    let mut before = 1;
    for count in [2, 3, 4, 3, 2, 1, 4, 1, 3] {
        cluster
            .manifests
            .apply_endpoints(&vip.endpoints(&pods[..count]))?;
        if count > before {
            let newest = format!("{}:8080", pods[count - 1].name);
            await_everywhere(cluster, vip, |answer| answer.who() == Some(&newest))?;
        }
        thread::sleep(STEP);
        before = count;
    }
    Ok(())
}

fn udp_moves(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "moving", &[cluster.pod("p1"), cluster.pod("p2")])?;
    let mut flows = open_everywhere(cluster, &vip, Protocol::Udp)?;
    for (flow, name) in &mut flows {
        let first = who(flow.ask()).context(name.clone())?;
        ensure!(who(flow.ask())? == first, "{name} moved without a reason");
        let other: &Pod = cluster.pod(if first == "p1" { "p2" } else { "p1" });
        cluster
            .manifests
            .apply_endpoints(&vip.endpoints(&[other]))?;
        eventually(name, || {
            let now = who(flow.ask())?;
            ensure!(now == other.name, "still at {now}");
            Ok(())
        })?;
        cluster
            .manifests
            .apply_endpoints(&vip.endpoints(&[cluster.pod("p1"), cluster.pod("p2")]))?;
        await_everywhere(cluster, &vip, |answer| answer.who().is_some())?;
    }
    Ok(())
}

/// From pods on this node and on the other.
fn late_answers(cluster: &Cluster) -> Result<()> {
    let mut connections = Vec::new();
    for pod in ["p1", "p2"] {
        let vip = serve(cluster, &format!("late-{pod}"), &[cluster.pod(pod)])?;
        for protocol in Protocol::BOTH {
            let open = open_everywhere(cluster, &vip, protocol)?;
            connections.extend(open.into_iter().map(|one| (protocol, one)));
        }
    }
    thread::scope(|scope| {
        let asking: Vec<_> = connections
            .iter_mut()
            .map(|(protocol, (connection, name))| {
                let ask = || who(connection.ask_late());
                (format!("{protocol} from {name}"), scope.spawn(ask))
            })
            .collect();
        for (name, asking) in asking {
            asking
                .join()
                .expect("asking does not panic")
                .context(name)?;
        }
        Ok(())
    })
}

fn deletion(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "deleted", &[cluster.pod("p1")])?;
    cluster.manifests.delete(&vip.name)?;
    // The node has no such port of its own.
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)
}

fn agent_restarted(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "restarted", &[cluster.pod("p1")])?;
    let mut connections = open_everywhere(cluster, &vip, Protocol::Tcp)?;
    let target = vip.on_node(cluster.node(1), Family::V4);
    let mut restart = || {
        cluster.stop_agents();
        for (connection, name) in &mut connections {
            who(connection.ask()).with_context(|| format!("{name}, opened before"))?;
        }
        for (mut connection, name) in open_everywhere(cluster, &vip, Protocol::Tcp)? {
            who(connection.ask()).with_context(|| format!("{name}, opened without an agent"))?;
        }
        cluster
            .manifests
            .apply_endpoints(&vip.endpoints(&[cluster.pod("p2")]))?;
        cluster.start_first_agent()?;
        await_everywhere(cluster, &vip, |answer| answer.who() == Some("p2:8080"))
    };
    let meanwhile = Meanwhile::default();
    let tally = thread::scope(|scope| {
        let running = scope.spawn(|| {
            let mut answers = Vec::new();
            meanwhile.repeat(|| {
                thread::sleep(pause(PAUSE));
                answers.push(dial(cluster.topology.client(), Protocol::Tcp, target).ask());
                Ok(())
            })?;
            Ok::<_, Error>(tally(answers))
        });
        let restarted = meanwhile.work(1, &mut restart);
        let tally = running.join().expect("asking does not panic")?;
        restarted.map(|()| tally)
    })?;
    let servers: Vec<_> = tally.keys().collect();
    ensure!(
        servers == ["p1:8080", "p2:8080"],
        "requests during the restart: {tally:?}"
    );
    for (connection, name) in &mut connections {
        ensure!(
            who(connection.ask()).context(name.clone())? == "p1",
            "{name} moved"
        );
    }
    Ok(())
}

/// A connection of each kind of client in each family.
fn open_everywhere(
    cluster: &Cluster,
    vip: &Vip,
    protocol: Protocol,
) -> Result<Vec<(Conversation, String)>> {
    let mut connections = Vec::new();
    for family in Family::BOTH {
        let clients: [(&Host, _); 3] = [
            (
                cluster.topology.client(),
                vip.on_node(cluster.node(1), family),
            ),
            (cluster.pod("c1"), vip.on_cluster_ip(family)),
            (&cluster.node(1).host, vip.on_cluster_ip(family)),
        ];
        for (client, target) in clients {
            let name = format!("{} to {target}", client.name);
            let connection = open(dial(client, protocol, target)).with_context(|| name.clone())?;
            connections.push((connection, name));
        }
    }
    Ok(connections)
}
