//! What the ends of connections do, as they may: open, answer, send, end, begin anew.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use proxy_common::edge::hook::Hook;
use testbed::random::Random;
use testbed::sockets::Protocol;

use super::Fuzz;
use super::model::{Connection, Edge, End, Phase, Place, Step, opening};
use crate::cases::forward::to_gateway;
use crate::frame::{Frame, Tcp};
use crate::node::Device;
use crate::world::{BACKEND_PORT, NODE_PORT, OTHER_NODE_PORT, SERVICE_PORT, Verdict};

/// Connections at once.
const MOST: usize = 48;
const FIRST_PORT: u16 = 40_000;
const PORTS: usize = 64;
const CLIENTS: usize = 3;

impl Fuzz<'_, '_> {
    /// One packet of an end.
    pub fn honest(&mut self) -> Result<()> {
        if self.live.is_empty() || (self.live.len() < MOST && self.random.one_in(6)) {
            return self.open_another();
        }
        let at = self.random.index(self.live.len());
        match self.world.protocol {
            Protocol::Udp => self.datagram(at),
            _ if self.live[at].is_over() => self.after_the_end(at),
            _ => self.segment(at),
        }
    }

    fn open_another(&mut self) -> Result<()> {
        let (world, random) = (self.world, &mut self.random);
        let edge = if random.one_in(3) {
            Edge::Pod
        } else {
            Edge::Outside
        };
        let port = FIRST_PORT + random.index(PORTS) as u16;
        let client = match edge {
            Edge::Outside => self.outside[random.index(CLIENTS)],
            Edge::Pod => world.at.pod_b.of(world.family),
        };
        let client = SocketAddr::new(client, port);
        let frontends = match edge {
            Edge::Outside => [
                world.node_port(),
                world.socket(world.at.node, OTHER_NODE_PORT),
                world.socket(world.at.balancer, SERVICE_PORT),
            ],
            Edge::Pod => [
                world.cluster_ip(),
                world.socket(world.at.node, NODE_PORT),
                world.socket(world.at.balancer, SERVICE_PORT),
            ],
        };
        let frontend = frontends[random.index(frontends.len())];
        // One that was left alone without an end is still known to the programs.
        let is_known = |one: &Connection| (one.client, one.frontend) == (client, frontend);
        if self.live.iter().any(is_known) {
            return Ok(());
        }
        let connection = self.open(edge, client, frontend)?;
        self.live.push(connection);
        Ok(())
    }

    /// The first packet. The programs choose the backend and the port; what they chose must be a choice that there is.
    fn open(&mut self, edge: Edge, client: SocketAddr, frontend: SocketAddr) -> Result<Connection> {
        let number = first_number(&mut self.random);
        let tcp = opening(self.world, number);
        let mut connection = Connection {
            edge,
            client,
            frontend,
            place: Place::Local,
            backend: self.world.backend(self.world.at.pod_a),
            proxy: client,
            phase: Phase::Opened,
            next: [number, first_number(&mut self.random)],
            acknowledged: [number; 2],
            fins: [false; 2],
            reset: false,
        };
        connection.acknowledged[1] = connection.next[1];
        let step = connection.packet(self.world, self.ingress, End::Client, tcp, 10);
        let ran = self.run(&step)?;
        let at = step.frame.transport();
        let port = ran
            .packet
            .get(at..at + 2)
            .map(|port| u16::from_be_bytes([port[0], port[1]]))
            .context("the packet is cut off")?;
        for place in [Place::Local, Place::Remote] {
            connection.place = place;
            let host = match place {
                Place::Local => self.world.at.pod_a,
                Place::Remote => self.world.at.remote,
            };
            connection.backend = SocketAddr::new(host.of(self.world.family), BACKEND_PORT);
            connection.proxy = match (edge, place) {
                (Edge::Outside, Place::Remote) => {
                    SocketAddr::new(self.world.at.node.of(self.world.family), port)
                }
                _ => SocketAddr::new(client.ip(), port),
            };
            let step = connection.packet(self.world, self.ingress, End::Client, tcp, 10);
            if ran.packet == step.expected.bytes() {
                self.check(&step, &ran)?;
                self.is_nobody_elses(&connection)?;
                if self.world.protocol == Protocol::Tcp {
                    connection.next[0] = number.wrapping_add(1);
                }
                return Ok(connection);
            }
        }
        Err(self.difference(&step, &ran, "is no opening of a connection"))
    }

    /// Of two connections to one backend the backend can tell which is which.
    fn is_nobody_elses(&self, new: &Connection) -> Result<()> {
        let same = self
            .live
            .iter()
            .filter(|one| (one.client, one.frontend) != (new.client, new.frontend))
            .find(|one| !one.is_over() && (one.proxy, one.backend) == (new.proxy, new.backend));
        ensure!(same.is_none(), "{new:?} looks to its backend like {same:?}");
        Ok(())
    }

    fn datagram(&mut self, at: usize) -> Result<()> {
        let end = match (self.live[at].phase, self.random.one_in(2)) {
            (Phase::Opened, false) | (_, true) => End::Client,
            _ => End::Backend,
        };
        // An answer comes only to a question, which has been asked by now.
        let length = 1 + self.random.index(600);
        self.send(at, end, Tcp::default(), length)?;
        let connection = &mut self.live[at];
        connection.phase = match (connection.phase, end) {
            (Phase::Opened, End::Backend) => Phase::Answered,
            (Phase::Answered, End::Client) => Phase::Confirmed,
            (phase, _) => phase,
        };
        Ok(())
    }

    fn segment(&mut self, at: usize) -> Result<()> {
        let connection = self.live[at].clone();
        match connection.phase {
            Phase::Opened if self.random.one_in(3) => {
                let first = connection.next[0].wrapping_sub(1);
                self.send(at, End::Client, opening(self.world, first), 10)
            }
            Phase::Opened => {
                let answer = Tcp {
                    syn: true,
                    ..connection.segment(End::Backend)
                };
                self.send(at, End::Backend, answer, 0)?;
                self.live[at].sent(End::Backend, 1);
                self.live[at].phase = Phase::Answered;
                Ok(())
            }
            Phase::Answered => {
                self.send(at, End::Client, connection.segment(End::Client), 0)?;
                self.live[at].sent(End::Client, 0);
                self.live[at].phase = Phase::Confirmed;
                Ok(())
            }
            Phase::Confirmed => self.in_the_middle(at, &connection),
        }
    }

    fn in_the_middle(&mut self, at: usize, connection: &Connection) -> Result<()> {
        let end = match End::BOTH.into_iter().find(|end| connection.waits(*end)) {
            Some(end) => end.other(),
            None => End::BOTH[self.random.index(2)],
        };
        let tcp = connection.segment(end);
        let has_ended = connection.fins[end as usize];
        match self.random.below(20) {
            0 => {
                let tcp = Tcp { rst: true, ..tcp };
                self.send(at, end, tcp, 0)?;
                self.live[at].reset = true;
            }
            1 | 2 if !has_ended => {
                let tcp = Tcp { fin: true, ..tcp };
                self.send(at, end, tcp, 0)?;
                self.live[at].sent(end, 1);
                self.live[at].fins[end as usize] = true;
            }
            3..=10 => {
                self.send(at, end, tcp, 0)?;
                self.live[at].sent(end, 0);
            }
            _ => {
                let length = if has_ended {
                    0
                } else {
                    1 + self.random.index(600)
                };
                self.send(at, end, tcp, length)?;
                self.live[at].sent(end, length as u32);
            }
        }
        Ok(())
    }

    /// A connection that is over makes room: for another one of the same name, or one straight to the backend.
    fn after_the_end(&mut self, at: usize) -> Result<()> {
        let old = self.live[at].clone();
        // One that goes on has the answers: what goes straight to a backend is not tracked.
        let is_taken = self
            .live
            .iter()
            .any(|one| !one.is_over() && (one.proxy, one.backend) == (old.client, old.backend));
        let is_alike = old.place == Place::Local && old.proxy == old.client;
        if is_alike && !is_taken && self.random.one_in(2) {
            self.live.swap_remove(at);
            return self.go_straight(&old);
        }
        let connection = self.open(old.edge, old.client, old.frontend)?;
        self.live[at] = connection;
        Ok(())
    }

    /// The same client to the same backend, past the service: nothing is done to either direction.
    fn go_straight(&mut self, old: &Connection) -> Result<()> {
        let tcp = opening(self.world, 77);
        let mut ask = old.packet(self.world, self.ingress, End::Client, tcp, 0);
        ask.frame.destination = old.backend;
        self.untouched(&ask.frame, ask.hook, ask.device)?;
        let (link, hook, device) = match old.edge {
            Edge::Outside => (to_gateway(), Hook::TC_UPLINK_OUT, Device::Uplink),
            Edge::Pod => (
                [Device::PodB.mac(), Device::PodB.far_mac()],
                Hook::TC_WORKLOAD_OUT,
                Device::PodB,
            ),
        };
        let answer = Frame {
            link,
            source: old.backend,
            destination: old.client,
            tcp: Tcp {
                syn: true,
                ack: true,
                acknowledgment: 78,
                ..Tcp::default()
            },
            ..ask.frame
        };
        self.untouched(&answer, hook, device)
    }

    /// A packet of an end, and exactly its translation.
    fn send(&mut self, at: usize, end: End, tcp: Tcp, payload: usize) -> Result<()> {
        let step = self.live[at].packet(self.world, self.ingress, end, tcp, payload);
        self.translated(&step)
    }

    pub fn translated(&mut self, step: &Step) -> Result<()> {
        let ran = self.run(step)?;
        self.check(step, &ran)
    }

    pub fn untouched(&mut self, frame: &Frame, hook: Hook, device: Device) -> Result<()> {
        let step = Step {
            hook,
            device,
            frame: frame.clone(),
            verdict: Verdict::Pass,
            expected: frame.clone(),
        };
        self.translated(&step)
    }
}

/// One whose upper half is neither 0, of which the programs know nothing, nor near the end.
pub fn first_number(random: &mut Random) -> u32 {
    0x1000_0000 + random.below(0x6000_0000) as u32
}
