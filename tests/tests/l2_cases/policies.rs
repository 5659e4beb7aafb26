//! Traffic policies, session affinity, and endpoints that shut down.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, Vip};
use testbed::patience::{eventually, patient};
use testbed::sockets::Protocol;
use testbed::topology::Host;

use crate::world::{World, await_answer, dial, seen_as_itself, serve, who};

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(500);

/// So many requests would find a second endpoint if it were in use; the chance that they do not is 2^-20.
const MANY: usize = 20;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row(
            "external policy Local uses local endpoints and keeps the client's address",
            external_local,
        ),
        world.row(
            "external policy Local drops where no endpoint is local",
            external_local_without,
        ),
        world.row_beside_xdp(
            "internal policy Local uses local endpoints and drops without one",
            internal_local,
        ),
        world.row("client affinity keeps a client on one endpoint", affinity),
        world.row(
            "terminating endpoints serve only where none is ready",
            terminating,
        ),
    ]
}

fn external_local(cluster: &Cluster) -> Result<()> {
    let vip = policy(cluster, "externalTrafficPolicy", &["p1", "p2"])?;
    let client = cluster.topology.client();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let target = vip.on_node(cluster.node(2), family);
            await_answer(client, protocol, target, |answer| {
                answer.who() == Some("p2:8080")
            })?;
            for _ in 0..MANY {
                let server = seen_as_itself(dial(client, protocol, target).ask(), client, family)?;
                ensure!(server == "p2", "{protocol} {target} was served by {server}");
            }
        }
    }
    Ok(())
}

fn external_local_without(cluster: &Cluster) -> Result<()> {
    let vip = policy(cluster, "externalTrafficPolicy", &["p2"])?;
    let client = cluster.topology.client();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            await_answer(
                client,
                protocol,
                vip.on_node(cluster.node(2), family),
                |answer| answer.who().is_some(),
            )?;
            let target = vip.on_node(cluster.node(1), family);
            await_silence(client, protocol, target)?;
            let inside = dial(cluster.pod("c1"), protocol, vip.on_cluster_ip(family)).ask();
            ensure!(
                inside.who() == Some("p2:8080"),
                "the cluster address is not concerned: {inside}"
            );
        }
    }
    Ok(())
}

/// Waits until a target answers no more, neither by a server nor by a refusal.
fn await_silence(client: &Host, protocol: Protocol, target: SocketAddr) -> Result<()> {
    eventually(&format!("silence from {}", client.name), || {
        let answer = dial(client, protocol, target)
            .within(patient(SILENCE))
            .ask();
        ensure!(answer == Answer::Timeout, "{protocol} {target}: {answer}");
        Ok(())
    })
}

fn internal_local(cluster: &Cluster) -> Result<()> {
    let vip = policy(cluster, "internalTrafficPolicy", &["p1"])?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let target = vip.on_cluster_ip(family);
            await_answer(cluster.pod("c1"), protocol, target, |answer| {
                answer.who() == Some("p1:8080")
            })?;
            await_silence(cluster.pod("c2"), protocol, target)?;
        }
    }
    Ok(())
}

fn affinity(cluster: &Cluster) -> Result<()> {
    let vip = serve(
        cluster,
        "affine",
        &["p1", "p1b", "p2", "p2b"].map(|name| cluster.pod(name)),
    )?;
    let affine = vip
        .service()
        .with("sessionAffinity", json!("ClientIP"))
        .with(
            "sessionAffinityConfig",
            json!({ "clientIP": { "timeoutSeconds": 300 } }),
        );
    cluster.manifests.apply(&affine)?;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        eventually("one endpoint for one client", || {
            let servers = (0..MANY)
                .map(|_| who(dial(cluster.topology.client(), Protocol::Tcp, target).ask()))
                .collect::<Result<BTreeSet<_>>>()?;
            ensure!(servers.len() == 1, "{target} was served by {servers:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn terminating(cluster: &Cluster) -> Result<()> {
    let (ready, leaving) = (cluster.pod("p1"), cluster.pod("p2"));
    let vip = serve(cluster, "leaving", &[ready])?;
    cluster
        .manifests
        .apply_endpoints(&vip.no_endpoints().terminating_pod(leaving))?;
    for family in Family::BOTH {
        let target = vip.on_cluster_ip(family);
        await_answer(cluster.pod("c1"), Protocol::Tcp, target, |answer| {
            answer.who() == Some("p2:8080")
        })?;
    }
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[ready]).terminating_pod(leaving))?;
    for family in Family::BOTH {
        let target = vip.on_cluster_ip(family);
        await_answer(cluster.pod("c1"), Protocol::Tcp, target, |answer| {
            answer.who() == Some("p1:8080")
        })?;
        for _ in 0..MANY {
            let server = who(dial(cluster.pod("c1"), Protocol::Tcp, target).ask())?;
            ensure!(server == "p1", "{target} was served by {server}");
        }
    }
    Ok(())
}

/// A service under a Local policy.
fn policy(cluster: &Cluster, field: &str, pods: &[&str]) -> Result<Vip> {
    let vip = cluster.vip("local");
    let pods: Vec<_> = pods.iter().map(|name| cluster.pod(name)).collect();
    cluster.manifests.apply_endpoints(&vip.endpoints(&pods))?;
    cluster
        .manifests
        .apply(&vip.service().with(field, json!("Local")))?;
    Ok(vip)
}
