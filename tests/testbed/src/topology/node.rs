//! A node: its uplink, its own BPF file system and control group, and the network that its pods join.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Result, bail};

use super::overlay::{self, Overlay};
use super::pod::{self, Pod};
use super::router::{self, Router};
use super::tunnel::{self, End, Keeper, Remote, Tunnel};
use super::{DEFAULT_MTU, Host, Joined, Plan, PodLinks, Segments};
use crate::address::{self, Mac, Pair};
use crate::masquerade;
use crate::netns::Netns;
use crate::run::Run;

pub(super) const POD_BRIDGE: &str = "cni0";

/// The end of a tunnel to the other node's pods.
const TO_PODS: &str = "pods";

pub struct Node {
    /// The node's own namespace; its address is that of the uplink `eth0`.
    pub host: Host,
    pub number: u8,
    pub bpffs: PathBuf,
    pub cgroup: PathBuf,
    /// Where its agent leaves what is not in maps.
    pub state: PathBuf,
    pub(super) links: PodLinks,
    pub(super) pod_mtu: u16,
    /// The Ethernet address of the pod bridge, where there is one.
    pub(super) bridge_mac: Mac,
    overlay: Option<Overlay>,
    /// To other nodes' pods.
    tunnel: Option<Tunnel>,
    /// The addresses of its link, where a tunnel over it leads to the router.
    below: Option<Pair>,
    _keeper: Option<Keeper>,
    more_uplinks: Vec<String>,
    netns_prefix: String,
    next_pod: AtomicU8,
}

impl Node {
    pub(super) fn create(run: &Run, router: &Router, plan: &Plan, number: u8) -> Result<Self> {
        let (host, keeper) = router.attach_node(run, plan, number)?;
        router::enable_routing(&host.netns)?;
        let (overlay, pod_mtu) = match plan.joined {
            Joined::Routed => (None, DEFAULT_MTU),
            Joined::Vxlan => (
                Some(Overlay::create(&host, number, plan.overlay_mtu)?),
                overlay::MTU,
            ),
            // The other end is not there yet.
            Joined::Tunnel(_) => (None, tunnel::MTU),
        };
        let tunnel = match plan.joined {
            Joined::Tunnel(tunnel) => Some(tunnel),
            Joined::Routed | Joined::Vxlan => None,
        };
        let node = Self {
            bpffs: run.bpffs(&host.name)?,
            cgroup: run.cgroup(&host.name)?,
            state: run.directory(&format!("{}.state", host.name))?,
            netns_prefix: run.netns_name(&host.name),
            host,
            number,
            links: plan.pods,
            pod_mtu,
            bridge_mac: Mac::fresh(),
            overlay,
            tunnel,
            below: match plan.segments {
                Segments::Behind(_) => Some(router::below(plan, number)),
                Segments::Shared | Segments::PerNode => None,
            },
            _keeper: keeper,
            more_uplinks: Vec::new(),
            next_pod: AtomicU8::new(2),
        };
        if node.links == PodLinks::Bridge {
            node.add_pod_bridge()?;
        }
        Ok(node)
    }

    pub fn name(&self) -> &str {
        &self.host.name
    }

    pub fn netns(&self) -> &Netns {
        &self.host.netns
    }

    /// A new pod; it lives as long as the value.
    pub fn add_pod(&self, name: &str) -> Result<Pod> {
        self.add_pod_behind(name, self.pod_mtu)
    }

    /// A new pod whose link is narrower on the node's side: the pod does not know, so only an ICMP error tells.
    pub fn add_pod_behind(&self, name: &str, host_mtu: u16) -> Result<Pod> {
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        self.create_pod(name, address::pod(self.number, number), host_mtu)
    }

    /// A new pod with addresses of another range than the node's.
    pub fn add_pod_at(&self, name: &str, ip: Pair) -> Result<Pod> {
        self.create_pod(name, ip, self.pod_mtu)
    }

    fn create_pod(&self, name: &str, ip: Pair, host_mtu: u16) -> Result<Pod> {
        let netns = format!("{}-{name}", self.netns_prefix);
        pod::create(self, name, ip, host_mtu, netns)
    }

    /// Whether `address` is one of this node's own.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.host.ip.contains(address)
            || self.gateway().contains(address)
            || self.is_overlay_address(address)
    }

    /// Whether `address` is that of its link below a tunnel, by which nobody knows it.
    pub fn is_below(&self, address: IpAddr) -> bool {
        self.below.is_some_and(|below| below.contains(address))
    }

    /// The address of the device through which this node reaches pods of other nodes.
    pub fn address_towards_other_pods(&self) -> Pair {
        if self.has_overlay() {
            address::overlay(self.number)
        } else {
            self.host.ip
        }
    }

    /// What `--uplinks` names: the interfaces that lead off the node. Where the default route is by a device without an Ethernet
    /// header, the agent has to find it.
    pub fn uplinks(&self) -> String {
        if self.below.is_some() {
            return "auto".to_owned();
        }
        let overlay = self.overlay.as_ref().map(|_| overlay::DEVICE.to_owned());
        let tunnel = self.tunnel.map(|tunnel| tunnel.device_names(TO_PODS));
        let names: Vec<_> = ["eth0".to_owned()]
            .into_iter()
            .chain(overlay)
            .chain(tunnel.into_iter().flatten())
            .chain(self.more_uplinks.iter().cloned())
            .collect();
        names.join(",")
    }

    /// Counts a device that was moved to the node as one that leads off it; an agent that runs does not know of it.
    pub fn add_uplink(&mut self, device: &str) {
        self.more_uplinks.push(device.to_owned());
    }

    pub(super) fn gateway(&self) -> Pair {
        address::pod_gateway(self.number)
    }

    pub(super) fn route_to_its_pods(&self) -> String {
        let (pods, via) = (address::pod(self.number, 0), self.host.ip);
        format!(
            "route add {}/24 via {}\nroute add {}/64 via {}\n",
            pods.v4, via.v4, pods.v6, via.v6
        )
    }

    fn has_overlay(&self) -> bool {
        self.overlay.is_some() || self.tunnel.is_some()
    }

    fn is_overlay_address(&self, address: IpAddr) -> bool {
        self.has_overlay() && address::overlay(self.number).contains(address)
    }

    fn add_pod_bridge(&self) -> Result<()> {
        let Pair { v4, v6 } = self.gateway();
        self.netns().ip(&format!(
            "link add {POD_BRIDGE} address {} mtu {} type bridge mcast_snooping 0\n\
             addr add {v4}/24 dev {POD_BRIDGE}\n\
             addr add {v6}/64 dev {POD_BRIDGE} nodad\n\
             link set {POD_BRIDGE} up\n",
            self.bridge_mac, self.pod_mtu
        ))
    }
}

/// Tells every node the way to every other node's pods.
pub(super) fn join(nodes: &[Node], plan: &Plan) -> Result<Option<Keeper>> {
    if let Joined::Tunnel(tunnel) = plan.joined {
        return join_by(tunnel, nodes, plan.overlay_mtu.min(tunnel::MTU));
    }
    for node in nodes {
        let others = nodes.iter().filter(|other| other.number != node.number);
        let mut routes = String::new();
        for other in others {
            match (&other.overlay, plan.segments) {
                (Some(overlay), _) => {
                    overlay.add_peer_on(node.netns(), &other.host, other.number)?
                }
                (None, Segments::Shared) => routes += &other.route_to_its_pods(),
                // The default route leads to the router, which knows.
                (None, Segments::PerNode | Segments::Behind(_)) => {}
            }
        }
        if !routes.is_empty() {
            node.netns().ip(&routes)?;
        }
    }
    Ok(None)
}

/// The same of two nodes, by devices without an Ethernet header.
fn join_by(tunnel: Tunnel, nodes: &[Node], mtu: u16) -> Result<Option<Keeper>> {
    let [first, second] = nodes else {
        bail!("a tunnel has two ends, and there are {} nodes", nodes.len());
    };
    let ends = [first, second].map(|node| End {
        netns: node.netns(),
        name: TO_PODS,
        below: "eth0",
        outer: node.host.ip,
        mtu,
    });
    let keeper = tunnel.lay(&ends, Remote::NextHop, 1)?;
    let [v4, v6] = tunnel.devices(TO_PODS);
    for (node, other) in [(first, second), (second, first)] {
        let (own, pods) = (address::overlay(node.number), address::pod(other.number, 0));
        let outer = other.host.ip.v4;
        let [via4, via6] = match tunnel {
            Tunnel::IpIp => [
                format!("via {outer} onlink"),
                format!("via ::{outer} onlink"),
            ],
            _ => [String::new(), String::new()],
        };
        node.netns().ip(&format!(
            "addr add {}/32 dev {v4}\n\
             addr add {}/128 dev {v6} nodad\n\
             route add {}/24 {via4} dev {v4}\n\
             route add {}/64 {via6} dev {v6}\n",
            own.v4, own.v6, pods.v4, pods.v6
        ))?;
        if masquerade::available() {
            masquerade::install(node.netns(), node.number)?;
        }
    }
    Ok(keeper)
}
