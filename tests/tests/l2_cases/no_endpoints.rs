//! A service without an endpoint refuses at once, wherever the client is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, Vip};
use testbed::patience::patient;
use testbed::sockets::Protocol;
use testbed::topology::Host;

use crate::world::{World, await_everywhere, dial, serve};

/// Shorter than the second after which a SYN is sent again: the first one has to be refused.
const AT_ONCE: Duration = Duration::from_millis(700);

pub fn rows(world: &World) -> Vec<Trial> {
    let refused_for = |place: &'static str, host: fn(&Cluster) -> &Host| {
        let name = format!("no endpoints: a client {place} is refused at once");
        world.row(name, move |cluster| refused_at_once(cluster, host(cluster)))
    };
    vec![
        refused_for("outside", |cluster| cluster.topology.client()),
        refused_for("on the segment", |cluster| &cluster.topology.neighbour),
        refused_for("in a pod", |cluster| cluster.pod("c1")),
        refused_for("on the node", |cluster| &cluster.node(1).host),
        world.row(
            "the last endpoint closes a service and the next one opens it",
            one_zero_one,
        ),
    ]
}

fn refused_at_once(cluster: &Cluster, client: &Host) -> Result<()> {
    let vip = emptied(cluster)?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for target in [
                vip.on_cluster_ip(family),
                vip.on_node(cluster.node(1), family),
            ] {
                // More often than an ICMP rate limit lets pass.
                for _ in 0..10 {
                    let start = Instant::now();
                    let answer = dial(client, protocol, target).ask();
                    let took = start.elapsed();
                    ensure!(
                        answer == Answer::Refused && took < patient(AT_ONCE),
                        "{protocol} {target}: {answer} in {took:?}"
                    );
                }
            }
        }
    }
    Ok(())
}

fn one_zero_one(cluster: &Cluster) -> Result<()> {
    let vip = emptied(cluster)?;
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p2")]))?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p2:8080"))
}

/// A service whose only endpoint is gone. A closed node port refuses before the agent has heard of any service: only
/// after an answer does a refusal tell that the change is in force.
fn emptied(cluster: &Cluster) -> Result<Vip> {
    let vip = serve(cluster, "emptied", &[cluster.pod("p1")])?;
    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)?;
    Ok(vip)
}
