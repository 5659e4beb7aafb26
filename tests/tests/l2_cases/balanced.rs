//! How new connections spread where a Service or its slices say it: by weights, by a consistent hash, by the client's address.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::tally;
use testbed::cluster::{Cluster, Vip};
use testbed::sockets::Protocol;

use crate::world::{World, await_everywhere, dial, who};

const CONNECTIONS: usize = 400;
/// Five standard deviations of a binomial with the probability 3/4: once in a million.
const ERROR: usize = 44;
/// First of the source ports that each row asks from.
const FIRST_OF_MAGLEV: u16 = 21_000;
const FIRST_OF_SOURCE: u16 = 21_100;
const PORTS: u16 = 24;
/// A table of Maglev counts as thousands of endpoints: each of two services has four of 8,191 slots.
const ROOM: u32 = 65_536;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![world.row(
        "balanced: connections spread by the weights of slices",
        weighted,
    )]
}

/// Where each table has the room that it asks for: without it, nodes may differ.
pub fn rows_with_room(uplink: Uplink) -> Vec<Trial> {
    let world = World::with_room_for(uplink, ROOM);
    vec![
        world.row(
            "balanced: with maglev every node sends a client to the same endpoint",
            consistent,
        ),
        world.row(
            "balanced: with source-hash a client has one endpoint, from every port",
            by_source,
        ),
    ]
}

fn weighted(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("weighted");
    for (pod, annotation, weight) in [
        ("p1", "portside.io/weight", "3"),
        ("p2", "service.cilium.io/weight", "1"),
        ("p1b", "portside.io/weight", "0"),
    ] {
        let endpoints = vip.endpoints(&[cluster.pod(pod)]);
        cluster
            .manifests
            .apply_endpoints(&endpoints.part(pod).annotated(annotation, weight))?;
    }
    cluster.manifests.apply(&vip.service())?;
    await_everywhere(cluster, &vip, |answer| answer.who().is_some())?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let target = vip.on_node(cluster.node(1), family);
            let ask = |_| dial(cluster.topology.client(), protocol, target).ask();
            let tally = tally((0..CONNECTIONS).map(ask));
            let [heavy, light] = ["p1:8080", "p2:8080"].map(|name| tally.get(name).copied());
            let (heavy, light) = (heavy.unwrap_or(0), light.unwrap_or(0));
            ensure!(
                heavy + light == CONNECTIONS && heavy.abs_diff(CONNECTIONS * 3 / 4) < ERROR,
                "{protocol} {target}: {tally:?}"
            );
        }
    }
    Ok(())
}

/// A service with four endpoints on two nodes.
fn balanced(cluster: &Cluster, by: &str) -> Result<Vip> {
    let vip = cluster.vip("balanced");
    let pods = ["p1", "p1b", "p2", "p2b"].map(|name| cluster.pod(name));
    cluster.manifests.apply_endpoints(&vip.endpoints(&pods))?;
    let service = vip.service().annotated("portside.io/load-balancing", by);
    cluster.manifests.apply(&service)?;
    await_everywhere(cluster, &vip, |answer| answer.who().is_some())?;
    Ok(vip)
}

/// Who answers each of the source ports, at a node's port.
fn answers(
    cluster: &Cluster,
    vip: &Vip,
    node: usize,
    (family, protocol): (Family, Protocol),
    first: u16,
) -> Result<Vec<String>> {
    let target = vip.on_node(cluster.node(node), family);
    let client = cluster.topology.client();
    (first..first + PORTS)
        .map(|port| who(dial(client, protocol, target).from_port(port).ask()))
        .collect()
}

fn consistent(cluster: &Cluster) -> Result<()> {
    let vip = balanced(cluster, "maglev")?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let of = (family, protocol);
            let [one, other] = [1, 2].map(|node| answers(cluster, &vip, node, of, FIRST_OF_MAGLEV));
            let (one, other) = (one?, other?);
            ensure!(one == other, "{protocol} {family}: {one:?} and {other:?}");
            let all: BTreeSet<_> = one.iter().collect();
            ensure!(all.len() > 1, "{protocol} {family}: {one:?}");
        }
    }
    Ok(())
}

fn by_source(cluster: &Cluster) -> Result<()> {
    let vip = balanced(cluster, "source-hash")?;
    for family in Family::BOTH {
        let mut all = BTreeSet::new();
        for protocol in Protocol::BOTH {
            for node in [1, 2] {
                let of = (family, protocol);
                all.extend(answers(cluster, &vip, node, of, FIRST_OF_SOURCE)?);
            }
        }
        ensure!(all.len() == 1, "{family}: {all:?}");
    }
    Ok(())
}
