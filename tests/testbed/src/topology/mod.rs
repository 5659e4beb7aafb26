//! Clients, a router and nodes, wired together.
//!
//! ```text
//!  client1 client2 …            neighbour (an outside client on the nodes' own segment)
//!      └──┬──┘                      │
//!   bridge `clients` ── router ── bridge `seg0` ── eth0 of node1, node2, …      Segments::Shared
//!                              ├─ bridge `segN` ── eth0 of nodeN                Segments::PerNode
//!                              └─ tunnel ───────── tunnel of nodeN              Segments::Behind
//! ```
//!
//! The router knows the way to the pods (unless they are on an overlay) and sends the service range to node1, as a
//! data centre would that announces it. Nodes reach each other's pods as [`Joined`] says. What makes a testbed lie is
//! set as distributions set it: reverse-path filtering strict, forwarding on, no ICMP redirects.

mod ipsec;
mod node;
mod overlay;
mod pod;
mod router;
mod tun;
mod tunnel;
mod wireguard;

use anyhow::Result;

use crate::address::{Mac, Pair};
use crate::ethtool;
use crate::netns::Netns;
use crate::pass::XdpPass;
use crate::run::Run;

pub use node::Node;
pub use pod::Pod;
pub use router::Router;
pub use tunnel::Tunnel;

pub const DEFAULT_MTU: u16 = 1500;

/// How the nodes' uplinks meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segments {
    /// One Ethernet segment: the next node is on link.
    Shared,
    /// A link to the router for each node, as in a cloud: the next node is behind the router.
    PerNode,
    /// The same, and over each of these links devices without an Ethernet header, which have the node's addresses and its default
    /// route. The link itself has others, by which nobody knows the node.
    Behind(Tunnel),
}

/// How one node's pods are reached from another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joined {
    /// Plain routes.
    Routed,
    /// A VXLAN device with static neighbours, and masquerading of what leaves the pod range, as flannel does.
    Vxlan,
    /// Devices without an Ethernet header, and the same masquerading. For two nodes.
    Tunnel(Tunnel),
}

/// How a pod hangs on its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PodLinks {
    /// A veth with host routes on both sides, as kindnet and the ptp plugin do.
    Ptp,
    /// A port of the bridge `cni0`, as flannel and the bridge plugin do.
    Bridge,
}

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: u8,
    pub nodes: u8,
    pub segments: Segments,
    pub joined: Joined,
    pub pods: PodLinks,
    /// Frames reach the uplinks with finished checksums and through a polling peer, as from and to a NIC. Native XDP
    /// needs this; without it the uplinks see the partial checksums and the large segments of a plain veth.
    pub wire_like_uplinks: bool,
    /// The MTU of the node's overlay or tunnel device; the pods keep what fits into one on a 1500-byte link.
    pub overlay_mtu: u16,
    /// The MTU of the router's end of the link towards one node.
    pub router_mtu_towards: Option<(u8, u16)>,
    /// The MTU of the router's end of the links towards the clients.
    pub router_mtu_towards_clients: u16,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            clients: 1,
            nodes: 2,
            segments: Segments::Shared,
            joined: Joined::Routed,
            pods: PodLinks::Ptp,
            wire_like_uplinks: true,
            overlay_mtu: overlay::MTU,
            router_mtu_towards: None,
            router_mtu_towards_clients: DEFAULT_MTU,
        }
    }
}

impl Plan {
    /// Why it cannot be built here, if so.
    pub fn missing(&self) -> Option<&'static str> {
        let between = match self.joined {
            Joined::Tunnel(tunnel) => tunnel.missing(),
            Joined::Routed | Joined::Vxlan => None,
        };
        let behind = match self.segments {
            Segments::Behind(tunnel) => tunnel.missing(),
            Segments::Shared | Segments::PerNode => None,
        };
        between.or(behind)
    }
}

/// A host with one interface, `eth0`.
pub struct Host {
    pub name: String,
    pub netns: Netns,
    pub ip: Pair,
    pub mac: Mac,
    /// The Ethernet address of its default gateway.
    pub gateway_mac: Mac,
    /// On the other end of the uplink, where frames of this host's `XDP_TX` are to arrive.
    far_end: Option<XdpPass>,
}

impl Host {
    /// Lets another program take the place at the far end of the uplink.
    pub fn free_far_end(&mut self) {
        self.far_end = None;
    }

    /// From now on the uplink receives by polling, as from a NIC, also without an XDP program.
    pub fn poll_uplink(&self) -> Result<()> {
        ethtool::set(&self.netns, "eth0", ethtool::SET_RECEIVE_OFFLOAD, true)
    }

    /// From now on the uplink leaves a VLAN's tag in the frame that it receives.
    pub fn keep_tags(&self) -> Result<()> {
        ethtool::set(&self.netns, "eth0", ethtool::SET_FLAGS, false)
    }

    /// From now on it takes them off, as it did at first.
    pub fn take_tags_off(&self) -> Result<()> {
        ethtool::set_flags(
            &self.netns,
            "eth0",
            ethtool::RECEIVE_TAGS | ethtool::SEND_TAGS,
        )
    }

    /// From now on the host finishes the checksums of what it sends, as if for a wire.
    pub fn finish_checksums(&self) -> Result<()> {
        ethtool::set(&self.netns, "eth0", ethtool::SET_TX_CHECKSUM, false)
    }
}

pub struct Topology {
    pub clients: Vec<Host>,
    /// An outside client on the first node's segment.
    pub neighbour: Host,
    pub router: Router,
    pub nodes: Vec<Node>,
    pub run: Run,
    /// What a tunnel between the nodes lives as long as.
    _keeper: Option<tunnel::Keeper>,
}

impl Topology {
    pub fn build(plan: &Plan) -> Result<Self> {
        let run = Run::start()?;
        let router = Router::create(&run, plan)?;
        let clients = (1..=plan.clients)
            .map(|number| router.attach_client(&run, plan, number))
            .collect::<Result<_>>()?;
        let neighbour = router.attach_neighbour(&run, plan)?;
        let nodes = (1..=plan.nodes)
            .map(|number| Node::create(&run, &router, plan, number))
            .collect::<Result<Vec<_>>>()?;
        let keeper = node::join(&nodes, plan)?;
        router.route_to_pods(&nodes, plan)?;
        Ok(Self {
            clients,
            neighbour,
            router,
            nodes,
            run,
            _keeper: keeper,
        })
    }

    /// The first outside client.
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }
}

/// The segment that node `number`'s uplink is on.
fn segment_of(plan: &Plan, number: u8) -> u8 {
    match plan.segments {
        Segments::Shared => 0,
        Segments::PerNode => number,
        Segments::Behind(_) => BELOW + number,
    }
}

/// Segments from here on are below tunnels.
const BELOW: u8 = 100;
