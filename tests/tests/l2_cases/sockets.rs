//! What the node itself asks from a port that is a service's, too: the answers are its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, Vip};
use testbed::masquerade;
use testbed::patience::patient;
use testbed::sockets::Protocol;
use testbed::sockets::client::unique_content;
use testbed::sockets::echo::EchoServer;
use testbed::topology::Host;

use crate::inject::fresh_port;
use crate::world::{World, dial, open, serve, who};

const PATIENCE: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;

pub fn rows(world: &World) -> Vec<Trial> {
    let mut rows = Vec::new();
    for (place, backend) in [("local", "p1"), ("remote", "p2")] {
        let name = format!(
            "answers to a connected socket reach the node whose port is that of a service with a {place} backend"
        );
        rows.push(world.row(name, move |cluster| connected(cluster, backend)));
        let name = format!(
            "answers to an unconnected socket reach the node whose port is that of a service with a {place} backend"
        );
        rows.push(world.row(name, move |cluster| unconnected(cluster, backend)));
        let name = format!(
            "answers to a masqueraded pod reach it where its port is that of a service with a {place} backend"
        );
        let missing = (!masquerade::available()).then_some(masquerade::MISSING);
        rows.push(world.row_unless(missing, name, move |cluster| masqueraded(cluster, backend)));
    }
    rows
}

/// A service, and a server outside that the node asks from the service's port.
struct Site<'a> {
    cluster: &'a Cluster,
    vip: Vip,
    backend: &'static str,
    port: u16,
    _server: EchoServer,
}

impl<'a> Site<'a> {
    fn build(cluster: &'a Cluster, backend: &'static str) -> Result<Self> {
        let port = fresh_port();
        Ok(Self {
            cluster,
            vip: serve(cluster, "own-port", &[cluster.pod(backend)])?,
            backend,
            port,
            _server: EchoServer::start(Self::outside(cluster), port)?,
        })
    }

    fn outside(cluster: &Cluster) -> &Host {
        &cluster.topology.neighbour
    }

    fn server(&self, family: Family) -> SocketAddr {
        SocketAddr::new(Self::outside(self.cluster).ip.of(family), self.port)
    }

    /// Real clients are served all the time, one of them on the very host that the node asks.
    fn is_served(&self, family: Family) -> Result<()> {
        let target = self.vip.on_node(self.cluster.node(1), family);
        for client in [self.cluster.topology.client(), Self::outside(self.cluster)] {
            for protocol in Protocol::BOTH {
                let answer = dial(client, protocol, target).ask();
                let server = who(answer)
                    .with_context(|| format!("{protocol} {target} from {}", client.name))?;
                ensure!(server == self.backend, "{target}: {server}");
            }
        }
        Ok(())
    }
}

fn connected(cluster: &Cluster, backend: &'static str) -> Result<()> {
    let site = Site::build(cluster, backend)?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let name = || format!("{protocol} over {family}");
            let from_port = dial(&cluster.node(1).host, protocol, site.server(family))
                .from_port(site.vip.node_port);
            let mut conversation = open(from_port).with_context(name)?;
            for _ in 0..ROUNDS {
                let server = who(conversation.ask()).with_context(name)?;
                ensure!(
                    server == Site::outside(cluster).name,
                    "{}: {server}",
                    name()
                );
                site.is_served(family).with_context(name)?;
            }
        }
        site.is_served(family)?;
    }
    Ok(())
}

fn unconnected(cluster: &Cluster, backend: &'static str) -> Result<()> {
    let site = Site::build(cluster, backend)?;
    for family in Family::BOTH {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let at = SocketAddr::new(any, site.vip.node_port);
        let socket = cluster.node(1).netns().run(|| UdpSocket::bind(at))?;
        socket.set_read_timeout(Some(patient(PATIENCE)))?;
        for round in 0..ROUNDS {
            let content = unique_content(64);
            socket.send_to(&content, site.server(family))?;
            let mut room = [0; 2048];
            let (length, from) = socket
                .recv_from(&mut room)
                .with_context(|| format!("over {family}, round {round}"))?;
            ensure!(from == site.server(family), "{from}");
            ensure!(room[..length].ends_with(&content), "another answer");
        }
        drop(socket);
        site.is_served(family)?;
    }
    Ok(())
}

/// The CNI gives the pod's packets the node's address, and leaves them their port where it is free.
fn masqueraded(cluster: &Cluster, backend: &'static str) -> Result<()> {
    let site = Site::build(cluster, backend)?;
    let (node, pod) = (cluster.node(1), cluster.pod("c1"));
    let table = format!("masquerades-{}", site.port);
    let mut rules = String::new();
    for (ip, family) in [("ip", Family::V4), ("ip6", Family::V6)] {
        let (own, port) = (pod.ip.of(family), site.port);
        rules += &format!(
            "table {ip} {table} {{\nchain postrouting {{\ntype nat hook postrouting priority 100;\n\
             {ip} saddr {own} meta l4proto {{ tcp, udp }} th dport {port} masquerade\n}}\n}}\n"
        );
    }
    node.netns().batch("nft", &["-f", "-"], &rules)?;
    let asked = Family::BOTH.into_iter().try_for_each(|family| {
        for protocol in Protocol::BOTH {
            let name = || format!("{protocol} over {family}");
            let from_port = dial(pod, protocol, site.server(family)).from_port(site.vip.node_port);
            let mut conversation = open(from_port).with_context(name)?;
            for _ in 0..ROUNDS {
                let answer = conversation.ask();
                let Answer::Ok { client, .. } = &answer else {
                    return who(answer).map(drop).with_context(name);
                };
                let seen = SocketAddr::new(node.host.ip.of(family), site.vip.node_port);
                ensure!(*client == seen, "{}: seen as {client}", name());
            }
            site.is_served(family).with_context(name)?;
        }
        Ok(())
    });
    let rules = format!("delete table ip {table}\ndelete table ip6 {table}\n");
    node.netns().batch("nft", &["-f", "-"], &rules)?;
    asked
}
