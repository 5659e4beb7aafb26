//! A service that holds first packets while it has no endpoint: nothing is answered, and the first endpoint serves who waited.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::cli;
use testbed::cluster::{Cluster, Vip};
use testbed::patience::{eventually, patient};
use testbed::sockets::Protocol;
use testbed::topology::Host;

use crate::world::{World, await_answer, await_everywhere, dial, open};

/// A refusal comes sooner.
const SILENCE: Duration = Duration::from_millis(100);
/// The SYN that is sent after the first endpoint may be the third or fourth.
const HANDSHAKE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a client's kernel goes on to send a SYN that nobody answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sends {
    /// After 1, 3, 7 s and so on: some two minutes.
    ForLong,
    /// A SYN that is dropped on its way out of the node is sent again after half a second, and each counts as one of
    /// `tcp_syn_retries`: less than 4 s in all. Then a client has to ask again.
    Briefly,
}

pub fn rows(world: &World) -> Vec<Trial> {
    let waits_for = |place: &'static str, sends: Sends, host: fn(&Cluster) -> &Host| {
        let name = format!("held: who waits {place} is served by the first endpoint");
        world.row(name, move |cluster| waits(cluster, host(cluster), sends))
    };
    vec![
        waits_for("outside", Sends::ForLong, |cluster| {
            cluster.topology.client()
        }),
        waits_for("in a pod", Sends::ForLong, |cluster| cluster.pod("c1")),
        waits_for("on the node", Sends::Briefly, |cluster| {
            &cluster.node(1).host
        }),
        world.row("held: after its time a client is refused", refused_at_last),
    ]
}

/// A service that is known everywhere, and whose only endpoint is gone.
fn emptied(cluster: &Cluster, annotations: &[(&str, &str)]) -> Result<Vip> {
    let vip = cluster.vip("held");
    let service = annotations
        .iter()
        .fold(vip.service(), |service, (name, value)| {
            service.annotated(name, value)
        });
    let pod = cluster.pod("p1");
    cluster.manifests.apply_endpoints(&vip.endpoints(&[pod]))?;
    cluster.manifests.apply(&service)?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1:8080"))?;
    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    // By others than who waits then: a client that was served begins anew.
    eventually("no endpoint on any node", || {
        for node in cluster.serving_nodes() {
            let endpoints = of_service(&cli::ask(node, &["get", "services", "-o", "json"])?, &vip)?
                ["endpoints"]
                .clone();
            ensure!(endpoints == 0, "{endpoints} on {}", node.name());
        }
        Ok(())
    })?;
    Ok(vip)
}

fn of_service(text: &str, vip: &Vip) -> Result<Value> {
    let document: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let rows = document["items"].as_array().context("no items")?;
    let row = rows.iter().find(|row| row["name"] == *vip.name);
    row.cloned()
        .with_context(|| format!("no row of {}", vip.name))
}

fn held(cluster: &Cluster, vip: &Vip) -> Result<u64> {
    let text = cli::ask(cluster.node(1), &["get", "services", "-o", "json"])?;
    let row = of_service(&text, vip)?;
    row["heldPackets"].as_u64().context("no number")
}

fn waits(cluster: &Cluster, client: &Host, sends: Sends) -> Result<()> {
    let vip = emptied(cluster, &[("portside.io/scale-from-zero", "hold")])?;
    let targets: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| {
            [
                vip.on_node(cluster.node(1), family),
                vip.on_cluster_ip(family),
            ]
        })
        .collect();
    let mut datagrams = Vec::new();
    for target in &targets {
        let mut one = open(dial(client, Protocol::Udp, *target).within(SILENCE))?;
        let answer = one.ask();
        ensure!(answer == Answer::Timeout, "UDP {target}: {answer}");
        datagrams.push(one);
    }
    says(cluster, &vip)?;
    thread::scope(|scope| {
        let connections: Vec<_> = targets
            .iter()
            .map(|target| {
                let ask = dial(client, Protocol::Tcp, *target).within(patient(HANDSHAKE));
                scope.spawn(move || ask.ask())
            })
            .collect();
        // Each SYN and each datagram.
        let all = 2 * targets.len() as u64;
        eventually("all first packets are held", || {
            let held = held(cluster, &vip)?;
            ensure!(held >= all, "{held} of {all}");
            Ok(())
        })?;
        let pod = cluster.pod("p2");
        cluster.manifests.apply_endpoints(&vip.endpoints(&[pod]))?;
        for (target, connection) in targets.iter().zip(connections) {
            let answer = connection
                .join()
                .map_err(|_| anyhow!("a client panicked"))?;
            if sends == Sends::Briefly && answer == Answer::Timeout {
                // Where everything takes longer, its kernel has given up by now.
                await_answer(client, Protocol::Tcp, *target, |answer| {
                    answer.who() == Some("p2:8080")
                })?;
            } else {
                ensure!(answer.who() == Some("p2:8080"), "TCP {target}: {answer}");
            }
        }
        for (target, one) in targets.iter().zip(&mut datagrams) {
            eventually(&format!("the next datagram to {target}"), || {
                let answer = one.ask();
                ensure!(answer.who() == Some("p2:8080"), "{answer}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// The commands know that packets wait.
fn says(cluster: &Cluster, vip: &Vip) -> Result<()> {
    let node = cluster.node(1);
    let text = cli::ask(node, &["describe", "service", &vip.name])?;
    let told = "it has no endpoint: new connections wait for one, 60 s each client";
    ensure!(text.contains(told), "{text}");
    let source = format!("{}:4000", cluster.topology.client().ip.v4);
    let target = vip.on_node(node, Family::V4).to_string();
    let text = cli::ask(node, &["explain", "tcp", &source, &target])?;
    ensure!(text.contains("not reachable yet: "), "{text}");
    Ok(())
}

fn refused_at_last(cluster: &Cluster) -> Result<()> {
    let annotations = [
        ("portside.io/scale-from-zero", "hold"),
        ("portside.io/hold-timeout", "2s"),
    ];
    let vip = emptied(cluster, &annotations)?;
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for family in Family::BOTH {
            // Of an address each: who waits is known by it.
            for (protocol, pod) in [(Protocol::Tcp, "c1"), (Protocol::Udp, "p1b")] {
                let (client, target) = (cluster.pod(pod), vip.on_cluster_ip(family));
                clients.push(scope.spawn(move || refused_in_time(client, protocol, target)));
            }
        }
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

fn refused_in_time(client: &Host, protocol: Protocol, target: SocketAddr) -> Result<()> {
    let began = Instant::now();
    let ask = || dial(client, protocol, target).within(SILENCE).ask();
    let answer = ask();
    ensure!(answer == Answer::Timeout, "{protocol} {target}: {answer}");
    eventually(&format!("{protocol} {target} is refused"), || {
        let answer = ask();
        ensure!(answer == Answer::Refused, "{answer}");
        Ok(())
    })?;
    let after = began.elapsed();
    ensure!(after >= TIMEOUT, "{protocol} {target}: after {after:?}");
    Ok(())
}
