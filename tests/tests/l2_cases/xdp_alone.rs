//! Where XDP serves an uplink, nothing of a connection through a service gets past it as it came: what the node's own capture sees
//! there has been translated or sent back already. The count of XDP shows the first packets, this all others.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::cluster::Cluster;
use testbed::sockets::Protocol;
use testbed::wire::Capture;

use crate::world::{World, dial, open, serve, who};

const QUESTIONS: usize = 10;

pub fn rows(world: &World, uplink: Uplink) -> Vec<Trial> {
    match uplink {
        Uplink::Xdp => vec![world.row("no packet of a connection gets past XDP", alone)],
        Uplink::Tc => Vec::new(),
    }
}

fn alone(cluster: &Cluster) -> Result<()> {
    let (client, node) = (cluster.topology.client(), cluster.node(1));
    for pod in ["p1", "p2"] {
        // Its next hops are known from then on.
        let vip = serve(cluster, "by-xdp-alone", &[cluster.pod(pod)])?;
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                let target = vip.on_node(node, family);
                let on_wire = Capture::start(&cluster.topology.router.netns, node.name())?;
                let past_xdp = Capture::start(node.netns(), "eth0")?;
                let mut connection = open(dial(client, protocol, target))?;
                for _ in 0..QUESTIONS {
                    who(connection.ask())?;
                }
                let port = connection.port()?;
                let of_connection = |capture: &Capture, outgoing| {
                    let mut packets = capture.packets();
                    packets.retain(|seen| {
                        seen.outgoing == outgoing
                            && seen.to() == Some(target)
                            && seen.has_port(port)
                    });
                    packets
                };
                let sent = of_connection(&on_wire, true).len();
                ensure!(sent >= QUESTIONS, "{sent} packets were on the wire");
                let passed = of_connection(&past_xdp, false);
                ensure!(
                    passed.is_empty(),
                    "{} of {sent} packets over {protocol} to {target} got past XDP, served by {pod}: {:?}",
                    passed.len(),
                    passed[0]
                );
            }
        }
    }
    Ok(())
}
