//! More first packets than there is room for new flows, from sources that are nobody's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use testbed::address::Family;
use testbed::agent::{Agent, Tables, Uplink};
use testbed::cluster::Cluster;
use testbed::sockets::Protocol;
use testbed::topology::{Host, Plan};
use testbed::wire::PacketSocket;
use testbed::wire::build::{self, Extra, Link};

use crate::world::{World, await_answer, dial, open, who};

const TABLES: Tables = Tables {
    flows: 1024,
    backends: 64,
    services: 64,
};
/// With these tables, for new flows of a family: the pending table has 1,024 entries, two to a flow.
const ROOM: usize = 512;
/// Packets of each family, every one from another source: more than either table has room for.
const FLOOD: u16 = 2048;
/// No server has it.
const UNSERVED: u16 = 7;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let world = World::without_agents(uplink, Plan::default());
    vec![world.row(
        "a flood of first packets from forged sources ends no connection",
        flood,
    )]
}

fn flood(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let kept = cluster.publish("kept", &[cluster.pod("p1"), cluster.pod("p2")])?;
    let flooded = cluster.vip("flooded");
    let nowhere = flooded.endpoints_at(&[cluster.pod("p2")], UNSERVED);
    cluster.manifests.apply_endpoints(&nowhere)?;
    cluster.manifests.apply(&flooded.service())?;
    let agent = Agent::begin(&cluster.launch(node).with_tables(TABLES))?;
    cluster.agents().push(agent);
    cluster.agents()[0].wait_until_ready()?;

    let mut connections = Vec::new();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let ways: [(&Host, SocketAddr); 2] = [
                (cluster.topology.client(), kept.on_node(node, family)),
                (cluster.pod("c1"), kept.on_cluster_ip(family)),
            ];
            for (client, target) in ways {
                let name = format!("{protocol} from {} to {target}", client.name);
                await_answer(client, protocol, target, |answer| answer.who().is_some())?;
                let mut connection = open(dial(client, protocol, target))?;
                // Its second request confirms a flow of UDP.
                let server = who(connection.ask()).with_context(|| name.clone())?;
                who(connection.ask()).with_context(|| name.clone())?;
                connections.push((connection, name, server));
            }
        }
    }
    for family in Family::BOTH {
        send(cluster, family, flooded.on_node(node, family))?;
    }
    let all = PinDir::new(&node.bpffs).open_maps()?.connections()?;
    for family in Family::BOTH {
        let target = flooded.on_node(node, family);
        let found = all.iter().filter(|one| one.frontend == target).count();
        // The kernel's LRU map keeps some of its room free for each CPU.
        ensure!(
            (ROOM / 4..=ROOM).contains(&found),
            "over {family} {found} new flows are kept, with room for {ROOM}"
        );
    }
    for (connection, name, server) in &mut connections {
        let now = who(connection.ask()).with_context(|| format!("{name}, after the flood"))?;
        ensure!(now == *server, "{name}: {now} serves it, not {server}");
    }
    for family in Family::BOTH {
        let answer = dial(
            cluster.topology.client(),
            Protocol::Tcp,
            kept.on_node(node, family),
        );
        who(answer.ask()).with_context(|| format!("a new connection over {family}"))?;
    }
    Ok(())
}

/// SYNs and datagrams by turns, each with a source of its own.
fn send(cluster: &Cluster, family: Family, to: SocketAddr) -> Result<()> {
    let (sender, node) = (&cluster.topology.neighbour, &cluster.node(1).host);
    let link = Link {
        source: sender.mac,
        destination: node.mac,
        vlan: None,
    };
    let socket = PacketSocket::open(&sender.netns, "eth0")?;
    for number in 0..FLOOD {
        let from = forged_source(family, number);
        let frame = match number % 2 {
            0 => build::syn(link, from, to)?,
            _ => build::udp(link, from, to, Extra::Nothing, b"?")?,
        };
        socket.send(&frame)?;
    }
    Ok(())
}

/// Of the addresses that are for documentation (RFC 5737, RFC 3849).
fn forged_source(family: Family, number: u16) -> SocketAddr {
    let ip = match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, (number % 250) as u8 + 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf00, 0, 0, 0, 0, number + 1).into(),
    };
    SocketAddr::new(ip, 1024 + number)
}
