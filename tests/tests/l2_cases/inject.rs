//! Frames put on a node's wire by hand, and what came of them: a row about packets that nobody should care for sends
//! them, then a question that has to be answered, and looks for traces of the former.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail, ensure};
use testbed::address::Family;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::one_cpu::OneCpu;
use testbed::sockets::Protocol;
use testbed::topology::Host;
use testbed::wire::build::{self, Extra, Link};
use testbed::wire::{Capture, PacketSocket, Seen};

/// A source port that no other frame and no other row has: those of sockets begin above (`ip_local_port_range`).
pub fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(22_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The wire before the first node's uplink: what is sent there, no switch has seen.
pub struct Wire<'a> {
    cluster: &'a Cluster,
    socket: PacketSocket,
    captures: Vec<(&'static str, Capture)>,
    _on: OneCpu,
}

/// On the wire itself: what is seen there as received is what left the node.
const AT_UPLINK: &str = "the uplink";

impl<'a> Wire<'a> {
    /// From now on what leaves the node and what reaches servers is noted.
    pub fn watch(cluster: &'a Cluster) -> Result<Self> {
        let (router, node) = (&cluster.topology.router.netns, cluster.node(1).name());
        // What is sent first comes first, too.
        let on = OneCpu::stay()?;
        let mut captures = vec![(AT_UPLINK, Capture::start(router, node)?)];
        for pod in ["p1", "p1b", "c1", "p2"] {
            captures.push((pod, Capture::start(&cluster.pod(pod).netns, "eth0")?));
        }
        Ok(Self {
            cluster,
            socket: PacketSocket::open(router, node)?,
            captures,
            _on: on,
        })
    }

    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame)
    }

    /// As the neighbour sends to the node.
    pub fn link(&self) -> Link {
        Link {
            source: self.cluster.topology.neighbour.mac,
            destination: self.cluster.node(1).host.mac,
            vlan: None,
        }
    }

    pub fn neighbour(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.cluster.topology.neighbour.ip.of(family), port)
    }

    /// Waits until whatever was sent before has been dealt with: asks a node port by the same wire, and gets an answer.
    pub fn settle(&self, vip: &Vip, family: Family) -> Result<()> {
        let to = vip.on_node(self.cluster.node(1), family);
        let from = self.neighbour(family, fresh_port());
        self.send(&build::udp(self.link(), from, to, Extra::Nothing, SETTLE)?)?;
        let (_, at_uplink) = &self.captures[0];
        at_uplink.find("the answer to a good question", |seen| {
            !seen.outgoing && (seen.from(), seen.to()) == (Some(to), Some(from))
        })?;
        Ok(())
    }

    /// The same by a question to a pod itself, where no node port serves.
    pub fn settle_straight(&self) -> Result<()> {
        let (_, at_uplink) = &self.captures[0];
        for family in Family::BOTH {
            let to = SocketAddr::new(self.cluster.pod("p1").ip.of(family), PORT);
            let from = self.neighbour(family, fresh_port());
            self.send(&build::udp(self.link(), from, to, Extra::Nothing, SETTLE)?)?;
            at_uplink.find("the answer to a good question", |seen| {
                !seen.outgoing && (seen.from(), seen.to()) == (Some(to), Some(from))
            })?;
        }
        Ok(())
    }

    /// Demands that of frames with these client ports nothing is to be seen but what was sent on the wire.
    pub fn ensure_no_trace(&self, sent: &[(u16, String)]) -> Result<()> {
        self.ensure_no_trace_beyond("nowhere", sent)
    }

    /// The same where they were sent by this pod.
    pub fn ensure_no_trace_beyond(&self, sender: &str, sent: &[(u16, String)]) -> Result<()> {
        self.ensure_none_at(sent, |place, seen| {
            !(seen.outgoing && (place == AT_UPLINK || place == sender))
        })
    }

    /// Demands that nothing of these client ports is to be seen that is `unwanted`.
    pub fn ensure_none(
        &self,
        sent: &[(u16, String)],
        unwanted: impl Fn(&Seen) -> bool,
    ) -> Result<()> {
        self.ensure_none_at(sent, |_, seen| unwanted(seen))
    }

    fn ensure_none_at(
        &self,
        sent: &[(u16, String)],
        unwanted: impl Fn(&str, &Seen) -> bool,
    ) -> Result<()> {
        let mut traces = Vec::new();
        for (place, capture) in &self.captures {
            let packets = capture.packets();
            for (port, what) in sent {
                let is_trace = |seen: &&Seen| seen.has_port(*port) && unwanted(place, seen);
                if let Some(seen) = packets.iter().find(is_trace) {
                    traces.push(format!("{what}: at {place}: {seen:?}"));
                }
            }
        }
        ensure!(
            traces.is_empty(),
            "{} traces of {} packets:\n{}",
            traces.len(),
            sent.len(),
            traces[..traces.len().min(SHOWN)].join("\n")
        );
        Ok(())
    }

    /// What was seen as it left the node by its uplink.
    pub fn left_the_node(&self) -> Vec<Seen> {
        let mut packets = self.captures[0].1.packets();
        packets.retain(|seen| !seen.outgoing);
        packets
    }

    /// Demands that some of what was sent did reach the wire.
    pub fn ensure_sent(&self, port: u16) -> Result<()> {
        let packets = self.captures[0].1.packets();
        if !packets
            .iter()
            .any(|seen| seen.outgoing && seen.has_port(port))
        {
            bail!("no frame with port {port} was on the wire");
        }
        Ok(())
    }
}

/// How many traces a failed row shows.
const SHOWN: usize = 8;

const SETTLE: &[u8] = b"a good question";

/// A first packet of either protocol.
pub fn question(
    link: Link,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
) -> Result<Vec<u8>> {
    match protocol {
        Protocol::Udp => build::udp(link, from, to, Extra::Nothing, b"a question"),
        _ => build::syn(link, from, to),
    }
}

/// From a pod to its gateway.
pub fn from_pod(pod: &Host) -> Link {
    Link {
        source: pod.mac,
        destination: pod.gateway_mac,
        vlan: None,
    }
}
