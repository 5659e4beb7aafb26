//! The ways that are compared, each a cluster of its own: the kernel's plain forwarding, Portside by XDP and by TC, and
//! nftables rules of kube-proxy's shape.
//!
//! The uplinks are the same in all of them: frames arrive with finished checksums, as from a wire.

use std::net::SocketAddr;

use anyhow::Result;

use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::cluster::{Cluster, Vip};
use testbed::topology::{Plan, Pod};

/// Where the pods serve, over TCP and UDP.
pub const WEB: u16 = 8000;

/// Node ports of the nftables rules: the local and the remote pod's.
const RULE_PORTS: [u16; 2] = [31_001, 31_002];

/// A cluster that is reached in one way.
pub struct Way {
    pub name: &'static str,
    pub uplink: Uplink,
    pub cluster: Cluster,
    target: Target,
}

enum Target {
    /// The pod's own address.
    Direct,
    /// A service of the local pod, and one of the remote pod.
    Services([Vip; 2]),
    Rules,
}

/// Which of the two pods that are served: one on the first node, one on the second.
#[derive(Clone, Copy, PartialEq)]
pub enum Backend {
    Local,
    Remote,
}

impl Backend {
    pub const fn pod(self) -> &'static str {
        match self {
            Self::Local => "p1",
            Self::Remote => "p2",
        }
    }
}

impl Way {
    /// All of them. The first one is what the others are compared with.
    pub fn all() -> Result<[Self; 4]> {
        Ok([
            Self::build("direct", Uplink::Tc, false)?,
            Self::build("Portside, XDP", Uplink::Xdp, true)?,
            Self::build("Portside, TC", Uplink::Tc, true)?,
            Self::nftables()?,
        ])
    }

    fn build(name: &'static str, uplink: Uplink, with_agents: bool) -> Result<Self> {
        let cluster = Cluster::build_as_planned(&Plan::default(), uplink)?;
        let target = if with_agents {
            let [local, remote] = [Backend::Local, Backend::Remote]
                .map(|backend| publish(&cluster, cluster.pod(backend.pod())));
            cluster.start_agents()?;
            Target::Services([local?, remote?])
        } else {
            Target::Direct
        };
        Ok(Self {
            name,
            uplink,
            cluster,
            target,
        })
    }

    fn nftables() -> Result<Self> {
        let mut way = Self::build("nftables", Uplink::Tc, false)?;
        let pods = [Backend::Local, Backend::Remote].map(|backend| way.pod(backend).ip.v4);
        way.cluster.node(1).netns().batch(
            "nft",
            &["-f", "-"],
            &rules(pods.map(|ip| ip.to_string())),
        )?;
        way.target = Target::Rules;
        Ok(way)
    }

    /// Is it ours, and not one to compare with?
    pub const fn is_portside(&self) -> bool {
        matches!(self.target, Target::Services(_))
    }

    pub fn pod(&self, backend: Backend) -> &Pod {
        self.cluster.pod(backend.pod())
    }

    /// Where to ask for the pod: at a NodePort of the first node, or directly.
    pub fn target(&self, backend: Backend) -> SocketAddr {
        let node = self.cluster.node(1);
        match &self.target {
            Target::Direct => SocketAddr::new(self.pod(backend).ip.v4.into(), WEB),
            Target::Services(services) => services[backend as usize].on_node(node, Family::V4),
            Target::Rules => SocketAddr::new(node.host.ip.v4.into(), RULE_PORTS[backend as usize]),
        }
    }
}

/// A service whose ports lead to the pod's.
fn publish(cluster: &Cluster, pod: &Pod) -> Result<Vip> {
    let vip = cluster.vip("bench");
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints_at(&[pod], WEB))?;
    cluster.manifests.apply(&vip.service())?;
    Ok(vip)
}

/// DNAT by a verdict map, random choice, and masquerading by mark, as kube-proxy's nftables mode writes them.
fn rules([local, remote]: [String; 2]) -> String {
    let [a, b] = RULE_PORTS;
    format!(
        "table ip bench {{
            chain ep-1 {{
                ip saddr {local} meta mark set mark or 0x4000
                meta l4proto {{ tcp, udp }} dnat to {local}:{WEB}
            }}
            chain ep-2 {{
                ip saddr {remote} meta mark set mark or 0x4000
                meta l4proto {{ tcp, udp }} dnat to {remote}:{WEB}
            }}
            chain svc-1 {{
                meta mark set mark or 0x4000
                numgen random mod 1 vmap {{ 0 : goto ep-1 }}
            }}
            chain svc-2 {{
                meta mark set mark or 0x4000
                numgen random mod 1 vmap {{ 0 : goto ep-2 }}
            }}
            map nodeports {{
                type inet_proto . inet_service : verdict
                elements = {{ tcp . {a} : goto svc-1, tcp . {b} : goto svc-2,
                             udp . {a} : goto svc-1, udp . {b} : goto svc-2 }}
            }}
            chain services {{
                fib daddr type local meta l4proto . th dport vmap @nodeports
            }}
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                jump services
            }}
            chain output {{
                type nat hook output priority -100; policy accept;
                jump services
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                meta mark and 0x4000 != 0 masquerade fully-random
            }}
        }}\n"
    )
}
