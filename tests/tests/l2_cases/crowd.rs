//! One source with more flows than there is room for: what others have stays theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use testbed::address::Family;
use testbed::agent::{Agent, Tables, Uplink};
use testbed::cluster::{Cluster, Vip};
use testbed::patience::{eventually, is_slow};
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::topology::{Host, Plan};
use testbed::wire::PacketSocket;
use testbed::wire::build::{self, Extra, Link, Segment};

use crate::inject::{fresh_port, from_pod};
use crate::world::{World, await_answer, dial, open, who};

/// New flows of a family have room for 512: the pending table has 1,024 entries, two to a flow.
const TABLES: Tables = Tables {
    flows: 1024,
    backends: 64,
    services: 64,
};
/// Four times that room.
const CROWD: u16 = 2048;
/// More than the confirmed table has room for.
const PAIRS: u16 = 1536;
/// So many handshakes are begun before they are gone on with.
const AT_ONCE: u16 = 128;
const CLIENTS: u8 = 4;
/// New conversations of each client after the crowd came.
const LATER: usize = 25;
/// Forged tuples to one backend: more than an address of the node has ports towards it.
const TUPLES: u32 = 100_000;
/// A source goes through so many side by side.
const PORTS_OF_EACH: u32 = 50_000;
/// So many of them at least hold a port when others ask.
const HELD: usize = 10_000;
const NEW_CLIENTS: usize = 200;
const TOO_MANY: &str = "100,000 packets take an emulated machine minutes";
/// No server has it.
const UNSERVED: u16 = 7;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let plan = || Plan {
        clients: CLIENTS,
        ..Plan::default()
    };
    let [crowds, pairs, floods] = [(); 3].map(|()| World::without_agents(uplink, plan()));
    vec![
        floods.row_unless(
            is_slow().then_some(TOO_MANY),
            "100,000 forged datagrams leave 200 new clients of the same backend their ports",
            flooded,
        ),
        crowds.row(
            "flows of one source leave those of others their room and their ports",
            crowded,
        ),
        pairs.row(
            "handshakes of any numbers push out no connection",
            never_confirmed,
        ),
    ]
}

fn start(cluster: &Cluster) -> Result<()> {
    let agent = Agent::begin(&cluster.launch(cluster.node(1)).with_tables(TABLES))?;
    cluster.agents().push(agent);
    cluster.agents()[0].wait_until_ready()
}

/// A source of many flows: a host on the segment, and a pod.
struct Crowd<'a> {
    host: &'a Host,
    link: Link,
    target: SocketAddr,
}

impl Crowd<'_> {
    /// Datagrams, each from another port.
    fn come(&self) -> Result<()> {
        let socket = PacketSocket::open(&self.host.netns, "eth0")?;
        let family = family_of(self.target);
        for number in 0..CROWD {
            let from = SocketAddr::new(self.host.ip.of(family), 2048 + number);
            let frame = build::udp(self.link, from, self.target, Extra::Nothing, b"?")?;
            socket.send(&frame)?;
        }
        Ok(())
    }
}

fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

fn crowded(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = cluster.publish("served", &[cluster.pod("p2")])?;
    let silent = cluster.vip("silent");
    let nowhere = silent.endpoints_at(&[cluster.pod("p2")], UNSERVED);
    cluster.manifests.apply_endpoints(&nowhere)?;
    cluster.manifests.apply(&silent.service())?;
    start(cluster)?;
    let (neighbour, pod) = (&cluster.topology.neighbour, cluster.pod("c1"));
    for family in Family::BOTH {
        let to_node = Link {
            source: neighbour.mac,
            destination: node.host.mac,
            vlan: None,
        };
        let crowds = [
            Crowd {
                host: neighbour,
                link: to_node,
                target: silent.on_node(node, family),
            },
            Crowd {
                host: pod,
                link: from_pod(pod),
                target: silent.on_cluster_ip(family),
            },
        ];
        for crowd in &crowds {
            beside(cluster, &vip, crowd)
                .with_context(|| format!("{} asks {}", crowd.host.name, crowd.target))?;
        }
    }
    Ok(())
}

/// Others wait for late answers while the crowd comes, and ask when it is there.
fn beside(cluster: &Cluster, vip: &Vip, crowd: &Crowd) -> Result<()> {
    let family = family_of(crowd.target);
    let outside = cluster.topology.clients.iter();
    let mut others: Vec<(&Host, SocketAddr)> = outside
        .map(|client| (client, vip.on_node(cluster.node(1), family)))
        .collect();
    others.push((cluster.pod("p1b"), vip.on_cluster_ip(family)));
    for (host, target) in &others {
        await_answer(host, Protocol::Udp, *target, |answer| {
            answer.who().is_some()
        })?;
    }
    let mut waiting = Vec::new();
    let mut ports = Vec::new();
    for (host, target) in &others {
        let port = fresh_port();
        let conversation = open(dial(host, Protocol::Udp, *target).from_port(port))?;
        waiting.push((conversation, format!("{} to {target}", host.name)));
        ports.push(port);
    }
    thread::scope(|scope| -> Result<()> {
        let ask = |(conversation, name): (Conversation, String)| {
            scope.spawn(move || {
                let mut conversation = conversation;
                (conversation.ask_late(), name)
            })
        };
        let asking: Vec<_> = waiting.into_iter().map(ask).collect();
        eventually("flows that wait for their answers", || {
            let all = PinDir::new(&cluster.node(1).bpffs)
                .open_maps()?
                .connections()?;
            for port in &ports {
                ensure!(all.iter().any(|flow| flow.client.port() == *port), "{port}");
            }
            Ok(())
        })?;
        crowd.come()?;
        for asked in asking {
            let (answer, name) = asked.join().expect("asking does not panic");
            who(answer).with_context(|| format!("{name}, asked before the crowd came"))?;
        }
        Ok(())
    })?;
    for (host, target) in &others {
        for number in 0..LATER {
            let answer = dial(host, Protocol::Udp, *target).ask();
            who(answer).with_context(|| format!("{} to {target}, {number} later", host.name))?;
        }
    }
    Ok(())
}

/// With the tables that an agent has by itself.
fn flooded(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = cluster.publish("flooded", &[cluster.pod("p2")])?;
    // Answers to nobody end at the router, without a word.
    cluster
        .topology
        .router
        .netns
        .ip("route add blackhole 203.0.113.0/24\n\
         route add blackhole 2001:db8:f00::/48\n")?;
    cluster.start_agent(&cluster.launch(node).with_default_tables())?;
    let neighbour = &cluster.topology.neighbour;
    let link = Link {
        source: neighbour.mac,
        destination: node.host.mac,
        vlan: None,
    };
    let socket = PacketSocket::open(&neighbour.netns, "eth0")?;
    for family in Family::BOTH {
        let to = vip.on_node(node, family);
        for client in &cluster.topology.clients {
            await_answer(client, Protocol::Udp, to, |answer| answer.who().is_some())?;
        }
        for number in 0..TUPLES {
            let (host, port) = (number / PORTS_OF_EACH, number % PORTS_OF_EACH);
            let from = SocketAddr::new(source(family, host as u8), 1024 + port as u16);
            socket.send(&build::udp(link, from, to, Extra::Nothing, b"?")?)?;
        }
        let all = PinDir::new(&node.bpffs).open_maps()?.connections()?;
        let held = all
            .iter()
            .filter(|flow| is_forged(flow.client.ip()))
            .count();
        ensure!(held > HELD, "{held} of {TUPLES} forged tuples hold a port");
        let mut clients = cluster.topology.clients.iter().cycle();
        let answered = (0..NEW_CLIENTS)
            .filter_map(|_| clients.next())
            .filter(|client| {
                // A port that is taken, wherever there is one.
                let asked = dial(client, Protocol::Udp, to).from_port(fresh_port());
                asked.ask().who().is_some()
            })
            .count();
        ensure!(
            answered == NEW_CLIENTS,
            "{family}: {answered} of {NEW_CLIENTS} new clients got an answer, while {held} forged tuples held ports"
        );
    }
    Ok(())
}

/// SYN and ACK with forged sources: the latter acknowledges what nobody said.
fn never_confirmed(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vips = [
        cluster.publish("pairs", &[cluster.pod("p1")])?,
        cluster.publish("pairs", &[cluster.pod("p2")])?,
    ];
    start(cluster)?;
    let mut kept = Vec::new();
    for family in Family::BOTH {
        for vip in &vips {
            for protocol in Protocol::BOTH {
                let target = vip.on_node(node, family);
                let client = cluster.topology.client();
                await_answer(client, protocol, target, |answer| answer.who().is_some())?;
                let mut connection = open(dial(client, protocol, target))?;
                // Its second request confirms a flow of UDP.
                who(connection.ask())?;
                who(connection.ask())?;
                kept.push((connection, format!("{protocol} {target}")));
            }
        }
    }
    let neighbour = &cluster.topology.neighbour;
    let link = Link {
        source: neighbour.mac,
        destination: node.host.mac,
        vlan: None,
    };
    let socket = PacketSocket::open(&neighbour.netns, "eth0")?;
    for family in Family::BOTH {
        for vip in &vips {
            let to = vip.on_node(node, family);
            for first in (0..PAIRS).step_by(AT_ONCE.into()) {
                let numbers = first..first + AT_ONCE;
                for number in numbers.clone() {
                    socket.send(&build::syn(link, forged(family, number), to)?)?;
                }
                // Their answers come meanwhile.
                thread::sleep(Duration::from_millis(5));
                for number in numbers {
                    let ack = Segment {
                        sequence: 2,
                        acknowledges: Some(0x1234_5678),
                        ..Segment::default()
                    };
                    socket.send(&build::tcp(link, forged(family, number), to, ack)?)?;
                }
            }
        }
    }
    let all = PinDir::new(&node.bpffs).open_maps()?.connections()?;
    let forged = all.iter().filter(|flow| flow.client.port() >= FIRST_FORGED);
    ensure!(forged.count() > 0, "nothing of it came about");
    for (connection, name) in &mut kept {
        who(connection.ask()).with_context(|| name.clone())?;
    }
    for family in Family::BOTH {
        for vip in &vips {
            let answer = dial(
                cluster.topology.client(),
                Protocol::Tcp,
                vip.on_node(node, family),
            )
            .ask();
            who(answer)?;
        }
    }
    Ok(())
}

/// Above what sockets take by themselves.
const FIRST_FORGED: u16 = 61_000;

/// Sources that are nobody's, on the segment's far side, a few ports for each.
fn forged(family: Family, number: u16) -> SocketAddr {
    SocketAddr::new(source(family, (number / 8) as u8), FIRST_FORGED + number)
}

fn source(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf00, u16::from(host), 0, 0, 0, 1).into(),
    }
}

fn is_forged(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(addr) => addr.octets().starts_with(&[203, 0, 113]),
        IpAddr::V6(addr) => addr.segments().starts_with(&[0x2001, 0xdb8, 0xf00]),
    }
}
