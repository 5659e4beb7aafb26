//! What XDP took, by the datapath's own count: TC would serve in its place, and no client would see a difference.

use anyhow::{Result, ensure};
use proxy_agent::datapath::PinDir;
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;

use crate::cluster::Cluster;

/// How many packets the slow path of XDP has translated on all nodes of a cluster: one at least of each connection that comes by
/// an uplink. A node without an agent has none.
pub fn translated(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for node in &cluster.topology.nodes {
        let pins = PinDir::new(&node.bpffs);
        if pins.root().exists() {
            let maps = pins.open_maps()?;
            sum += maps.reason_count(&Hook::XDP_UPLINK, Reason::Translated)?;
        }
    }
    Ok(sum)
}

/// Does `work`, and demands that XDP translated something meanwhile.
pub fn takes<T>(cluster: &Cluster, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = translated(cluster)?;
    let worked = work()?;
    let after = translated(cluster)?;
    // Maps that were made anew meanwhile begin at zero.
    ensure!(
        after > 0 && after != before,
        "XDP translated nothing: {after} packets, as before"
    );
    Ok(worked)
}
