//! New connections spread evenly over the endpoints.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::answer::{Tally, tally};
use testbed::cluster::Cluster;
use testbed::sockets::Protocol;

use crate::world::{World, dial, serve};

const CONNECTIONS: usize = 400;

/// Three degrees of freedom: an even choice exceeds this once in 100,000 runs, one that prefers an endpoint twofold
/// nearly always.
const CHI_SQUARED: f64 = 25.9;

pub fn rows(world: &World) -> Vec<Trial> {
    Protocol::BOTH
        .map(|protocol| {
            let name = format!("{protocol} connections spread evenly over four endpoints");
            world.row(name, move |cluster| spreads(cluster, protocol))
        })
        .into()
}

fn spreads(cluster: &Cluster, protocol: Protocol) -> Result<()> {
    let pods = ["p1", "p1b", "p2", "p2b"].map(|name| cluster.pod(name));
    let vip = serve(cluster, "spread", &pods)?;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let tally = tally(
            (0..CONNECTIONS).map(|_| dial(cluster.topology.client(), protocol, target).ask()),
        );
        let chi_squared = chi_squared(&tally, pods.len());
        ensure!(
            tally.len() == pods.len() && chi_squared < CHI_SQUARED,
            "{target}: {tally:?}, chi2 {chi_squared:.1}"
        );
    }
    Ok(())
}

fn chi_squared(tally: &Tally, servers: usize) -> f64 {
    let expected = CONNECTIONS as f64 / servers as f64;
    tally
        .values()
        .map(|count| (*count as f64 - expected).powi(2) / expected)
        .sum()
}
