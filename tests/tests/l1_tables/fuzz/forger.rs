//! What somebody does who sees neither end's packets: with all addresses and ports, and without the numbers; and what a pod does with
//! the numbers, at a device that the connection does not come by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use proxy_common::edge::hook::Hook;
use testbed::address::Family;
use testbed::sockets::Protocol;

use super::model::{Connection, Edge, End, Phase, Place, opening};
use super::{Fuzz, Plant};
use crate::frame::{self, Frame, Link, Tcp};
use crate::node::Device;
use crate::world::BACKEND_PORT;

/// Handshakes that are begun in others' names, between two times that the tables are cleared: fewer than there is room for.
const HANDSHAKES: usize = 200;
/// Of somebody who begins none.
const UNKNOWN: u16 = 1000;

impl Fuzz<'_, '_> {
    /// One packet, or a few, that change nothing.
    pub fn forge(&mut self) -> Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        let victim = self.live[self.random.index(self.live.len())].clone();
        if victim.is_over() {
            return Ok(());
        }
        match self.random.below(8) {
            0 | 1 => self.blind(&victim),
            2 => self.blind_reset(&victim),
            3 => self.by_another_device(&victim),
            4 => self.straight(&victim),
            5 => self.icmp(&victim),
            6 => self.unknown(),
            _ => self.handshake(),
        }
    }

    /// Numbers that fit neither end, unless it is planted that they do.
    fn guess(&mut self, victim: &Connection, end: End) -> Tcp {
        let right = victim.segment(end);
        if self.plant == Some(Plant::Numbers) {
            return right;
        }
        let wrong = |number: u32, by: u64| number.wrapping_add((1 + by as u32) << 28);
        Tcp {
            sequence: wrong(right.sequence, self.random.below(14)),
            acknowledgment: wrong(right.acknowledgment, self.random.below(14)),
            ..right
        }
    }

    /// Which end's packets can be forged on the wire: a local backend's come from its own pod.
    fn end(&mut self, victim: &Connection) -> Option<End> {
        match (victim.edge, victim.place) {
            (Edge::Pod, _) => None,
            (Edge::Outside, Place::Local) => Some(End::Client),
            (Edge::Outside, Place::Remote) => Some(End::BOTH[self.random.index(2)]),
        }
    }

    /// Any flags. It is translated as what it seems to be.
    fn blind(&mut self, victim: &Connection) -> Result<()> {
        let Some(end) = self.end(victim) else {
            return Ok(());
        };
        let mut tcp = Tcp::default();
        if self.world.protocol == Protocol::Tcp {
            tcp = self.guess(victim, end);
            let (fin, rst) = (self.random.one_in(3), self.random.one_in(3));
            (tcp.fin, tcp.rst) = (fin, rst);
            // A SYN before the answer is the client's own, as far as anybody can tell.
            let may_open = end == End::Backend || victim.phase == Phase::Confirmed;
            tcp.syn = !fin && !rst && may_open && self.random.one_in(3);
            let opens = tcp.syn && end == End::Client;
            tcp.ack = !opens && (!rst || self.random.one_in(2));
        } else if victim.phase != Phase::Confirmed {
            // Datagrams have no numbers: who has the addresses is the end.
            return Ok(());
        }
        let payload = self.random.index(40);
        let step = victim.packet(self.world, self.ingress, end, tcp, payload);
        self.translated(&step)
    }

    /// The reset, and at once what a reset makes room for.
    fn blind_reset(&mut self, victim: &Connection) -> Result<()> {
        let Some(end) = self.end(victim) else {
            return Ok(());
        };
        if self.world.protocol == Protocol::Udp {
            return Ok(());
        }
        let tcp = Tcp {
            rst: true,
            ack: self.random.one_in(2),
            ..self.guess(victim, end)
        };
        let step = victim.packet(self.world, self.ingress, end, tcp, 0);
        self.translated(&step)?;
        self.straight(victim)
    }

    /// A SYN past the service, to the backend itself, in the client's name.
    fn straight(&mut self, victim: &Connection) -> Result<()> {
        if self.world.protocol == Protocol::Udp || victim.edge == Edge::Pod {
            return Ok(());
        }
        let tcp = opening(self.world, self.random.below(1 << 32) as u32);
        let mut step = victim.packet(self.world, self.ingress, End::Client, tcp, 0);
        step.frame.destination = victim.backend;
        self.untouched(&step.frame, step.hook, step.device)
    }

    /// With all the right numbers, from a pod that is not the one.
    fn by_another_device(&mut self, victim: &Connection) -> Result<()> {
        let device = match victim.edge {
            Edge::Outside if self.random.one_in(2) => Device::PodB,
            // The backend's own pod can say what it likes of itself.
            _ => Device::PodA,
        };
        let end = match victim.place {
            Place::Remote if victim.edge == Edge::Outside => End::BOTH[self.random.index(2)],
            _ => End::Client,
        };
        let mut tcp = Tcp::default();
        if self.world.protocol == Protocol::Tcp {
            tcp = victim.segment(end);
            (tcp.rst, tcp.fin) = (self.random.one_in(3), self.random.one_in(3));
        }
        let mut step = victim.packet(self.world, self.ingress, end, tcp, 5);
        step.frame.link = from_pod(device);
        self.refused(&step.frame, Hook::TC_WORKLOAD_IN, device)
    }

    /// An error about a packet of the connection; it is handed on or not, and that is all.
    fn icmp(&mut self, victim: &Connection) -> Result<()> {
        if victim.edge == Edge::Pod || victim.place == Place::Local {
            return Ok(());
        }
        let tcp = self.guess(victim, End::Client);
        let step = victim.packet(self.world, self.ingress, End::Client, tcp, 0);
        let quotation = step.expected.quotation(8);
        let by_pod = self.random.one_in(2);
        let device = if by_pod { Device::PodA } else { Device::Uplink };
        let link = if by_pod {
            from_pod(device)
        } else {
            self.world.inbound()
        };
        let (from, to) = (victim.backend.ip(), victim.proxy.ip());
        let error = frame::icmp_error(link, from, to, frame::Error::PortUnreachable, &quotation);
        let hook = if by_pod {
            Hook::TC_WORKLOAD_IN
        } else {
            self.ingress
        };
        let ran = self.world.node.run_only(&hook, device, &error)?;
        ensure!(
            !by_pod || ran.packet == error,
            "an ICMP error of a pod about {victim:?} was translated"
        );
        Ok(())
    }

    /// In the middle of a connection that there never was.
    fn unknown(&mut self) -> Result<()> {
        if self.world.protocol == Protocol::Udp {
            return Ok(());
        }
        let from = self.stranger(UNKNOWN);
        let mut frame = self
            .world
            .middle(self.world.inbound(), from, self.world.node_port());
        frame.tcp.rst = self.random.one_in(3);
        frame.tcp.fin = self.random.one_in(3);
        self.untouched(&frame, self.ingress, Device::Uplink)
    }

    /// SYN and ACK in somebody's name, whose answers go to him.
    fn handshake(&mut self) -> Result<()> {
        self.strangers += 1;
        if self.strangers > HANDSHAKES || self.world.protocol == Protocol::Udp {
            return Ok(());
        }
        let client = self.stranger(self.strangers as u16);
        let frontend = self.world.node_port();
        let ask = self.world.opening(self.world.inbound(), client, frontend);
        let ran = self
            .world
            .node
            .run_only(&self.ingress, Device::Uplink, &ask.bytes())?;
        let at = ask.transport();
        let port = u16::from_be_bytes([ran.packet[at], ran.packet[at + 1]]);
        let node = SocketAddr::new(self.world.at.node.of(self.world.family), port);
        let mut victim = Connection {
            edge: Edge::Outside,
            client,
            frontend,
            place: Place::Remote,
            backend: SocketAddr::new(self.world.at.remote.of(self.world.family), BACKEND_PORT),
            proxy: node,
            phase: Phase::Opened,
            next: [ask.tcp.sequence.wrapping_add(1), 0x2222_2222],
            acknowledged: [0; 2],
            fins: [false; 2],
            reset: false,
        };
        if ran.packet.get(12..at) != Some(&expected(&victim, self, &ask).bytes()[12..at]) {
            victim.place = Place::Local;
            victim.backend =
                SocketAddr::new(self.world.at.pod_a.of(self.world.family), BACKEND_PORT);
            victim.proxy = SocketAddr::new(client.ip(), port);
        }
        // The backend answers, or somebody in its name.
        let answer = Tcp {
            syn: true,
            ..victim.segment(End::Backend)
        };
        let answer = if victim.place == Place::Remote && self.random.one_in(2) {
            Tcp {
                syn: true,
                ..self.guess(&victim, End::Backend)
            }
        } else {
            answer
        };
        let step = victim.packet(self.world, self.ingress, End::Backend, answer, 0);
        self.translated(&step)?;
        victim.sent(End::Backend, 1);
        for _ in 0..2 {
            let tcp = self.guess(&victim, End::Client);
            let step = victim.packet(self.world, self.ingress, End::Client, tcp, 3);
            self.translated(&step)?;
        }
        Ok(())
    }

    /// An address of nobody's, which is reached by the uplink.
    fn stranger(&mut self, number: u16) -> SocketAddr {
        let ip: IpAddr = match self.world.family {
            Family::V4 => Ipv4Addr::new(203, 0, 113, (number % 250) as u8 + 1).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf00, 0, 0, 0, 0, number + 1).into(),
        };
        SocketAddr::new(ip, 50_000 + number)
    }
}

fn expected(victim: &Connection, fuzz: &Fuzz, ask: &Frame) -> Frame {
    let step = victim.packet(
        fuzz.world,
        fuzz.ingress,
        End::Client,
        ask.tcp,
        ask.payload.len(),
    );
    step.expected
}

fn from_pod(device: Device) -> Link {
    [device.far_mac(), device.mac()]
}
