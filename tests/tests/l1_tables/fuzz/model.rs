//! The naive model: a connection is who talks to whom, the numbers of its ends, and who has said its last.
//!
//! In: what an end does next. Out: the packet that it sends, the hook that sees it, and what has to come out. The rule: only what an end of
//! a connection itself sends changes the connection.

use std::net::SocketAddr;

use proxy_common::edge::hook::Hook;
use testbed::sockets::Protocol;

use crate::cases::forward::{to_gateway, to_other_node};
use crate::frame::{Frame, Link, Tcp};
use crate::node::{Device, OTHER_NODE_MAC};
use crate::world::{Verdict, World};

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    Outside,
    /// The pod behind `pod1`.
    Pod,
}

/// Where the backend is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The pod behind `pod0`.
    Local,
    Remote,
}

/// How far a handshake came; of UDP, question, answer and the next question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub enum Phase {
    Opened,
    Answered,
    Confirmed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Client,
    Backend,
}

impl End {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub edge: Edge,
    pub client: SocketAddr,
    pub frontend: SocketAddr,
    pub place: Place,
    pub backend: SocketAddr,
    /// The client as its backend sees it.
    pub proxy: SocketAddr,
    pub phase: Phase,
    /// The next sequence number of each end, and how far it has been acknowledged.
    pub next: [u32; 2],
    pub acknowledged: [u32; 2],
    pub fins: [bool; 2],
    pub reset: bool,
}

/// A packet at a hook, and what has to become of it.
pub struct Step {
    pub hook: Hook,
    pub device: Device,
    pub frame: Frame,
    pub verdict: Verdict,
    pub expected: Frame,
}

impl Connection {
    /// Both ends have said their last, or one broke it off.
    pub fn is_over(&self) -> bool {
        self.reset || self.fins == [true; 2]
    }

    /// The packet of an end with these numbers, as its edge sees it.
    pub fn packet(&self, world: &World, ingress: Hook, end: End, tcp: Tcp, payload: usize) -> Step {
        let frame = |link: Link, source, destination| Frame {
            link,
            source,
            destination,
            protocol: world.protocol,
            ttl: 64,
            tcp,
            payload: vec![0x5a; payload],
            options: false,
            vlan: false,
            no_checksum: false,
        };
        let Self {
            client,
            frontend,
            backend,
            proxy,
            ..
        } = *self;
        let pod = Device::PodB;
        let (hook, device, frame, verdict, expected) = match (end, self.edge, self.place) {
            (End::Client, Edge::Outside, Place::Local) => {
                let frame = frame(world.inbound(), client, frontend);
                let expected = frame.clone().from(proxy).to(backend);
                (ingress, Device::Uplink, frame, Verdict::Pass, expected)
            }
            (End::Client, Edge::Outside, Place::Remote) => {
                let frame = frame(world.inbound(), client, frontend);
                let expected = frame.clone().forwarded(to_other_node());
                let expected = expected.from(proxy).to(backend);
                (ingress, Device::Uplink, frame, Verdict::Send, expected)
            }
            (End::Client, Edge::Pod, _) => {
                let frame = frame([pod.far_mac(), pod.mac()], client, frontend);
                let expected = frame.clone().from(proxy).to(backend);
                (Hook::TC_WORKLOAD_IN, pod, frame, Verdict::Pass, expected)
            }
            (End::Backend, Edge::Outside, Place::Local) => {
                let frame = frame(to_gateway(), backend, proxy);
                let expected = frame.clone().from(frontend).to(client);
                (
                    Hook::TC_UPLINK_OUT,
                    Device::Uplink,
                    frame,
                    Verdict::Pass,
                    expected,
                )
            }
            (End::Backend, Edge::Outside, Place::Remote) => {
                let frame = frame([OTHER_NODE_MAC, Device::Uplink.mac()], backend, proxy);
                let expected = frame.clone().forwarded(to_gateway());
                let expected = expected.from(frontend).to(client);
                (ingress, Device::Uplink, frame, Verdict::Send, expected)
            }
            (End::Backend, Edge::Pod, _) => {
                let frame = frame([pod.mac(), pod.far_mac()], backend, proxy);
                let expected = frame.clone().from(frontend).to(client);
                (Hook::TC_WORKLOAD_OUT, pod, frame, Verdict::Pass, expected)
            }
        };
        Step {
            hook,
            device,
            frame,
            verdict,
            expected,
        }
    }

    /// What is right for a segment of this end now.
    pub fn segment(&self, end: End) -> Tcp {
        Tcp {
            ack: true,
            sequence: self.next[end as usize],
            acknowledgment: self.next[end.other() as usize],
            window: 64_000,
            ..Tcp::default()
        }
    }

    /// The end has sent so much; by that it has acknowledged all of the other's.
    pub fn sent(&mut self, end: End, length: u32) {
        self.next[end as usize] = self.next[end as usize].wrapping_add(length);
        self.acknowledged[end.other() as usize] = self.next[end.other() as usize];
    }

    /// Has the end sent much that the other has not acknowledged?
    pub fn waits(&self, end: End) -> bool {
        let behind = self.next[end as usize].wrapping_sub(self.acknowledged[end as usize]);
        behind > 20_000
    }
}

/// The segment that opens a connection with this number.
pub fn opening(world: &World, sequence: u32) -> Tcp {
    match world.protocol {
        Protocol::Udp => Tcp::default(),
        _ => Tcp {
            syn: true,
            sequence,
            window: 64_000,
            ..Tcp::default()
        },
    }
}
