//! A pod: a namespace whose `eth0` is a veth to its node.

use std::ops::Deref;

use anyhow::Result;

use super::node::POD_BRIDGE;
use super::{Host, Node, PodLinks};
use crate::address::{Mac, Pair};
use crate::netns::Netns;

pub struct Pod {
    host: Host,
    /// The name of the node that it runs on.
    pub node: String,
    /// The node's end of its link.
    pub host_interface: String,
}

impl Deref for Pod {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

pub(super) fn create(
    node: &Node,
    name: &str,
    ip: Pair,
    host_mtu: u16,
    netns_name: String,
) -> Result<Pod> {
    let host_mac = Mac::fresh();
    let host = Host {
        name: name.to_owned(),
        netns: Netns::create(netns_name)?,
        ip,
        mac: Mac::fresh(),
        gateway_mac: match node.links {
            PodLinks::Ptp => host_mac,
            PodLinks::Bridge => node.bridge_mac,
        },
        far_end: None,
    };
    let host_interface = format!("veth{:08x}", u32::from(host.ip.v4));
    let (inside, mac, pod_mtu) = (host.netns.name(), host.mac, node.pod_mtu);
    let link = format!(
        "link add {host_interface} address {host_mac} mtu {host_mtu} type veth \
         peer name eth0 address {mac} mtu {pod_mtu} netns {inside}\n"
    );
    let (outside, inside) = match node.links {
        PodLinks::Ptp => by_routes(node, &host, &host_interface),
        PodLinks::Bridge => by_bridge(node, &host, &host_interface),
    };
    node.netns().ip(&(link + &outside))?;
    host.netns.ip(&inside)?;
    Ok(Pod {
        host,
        node: node.name().to_owned(),
        host_interface,
    })
}

/// What is said to the node and to the pod, in this order.
fn by_routes(node: &Node, pod: &Host, interface: &str) -> (String, String) {
    let (gateway, ip) = (node.gateway(), pod.ip);
    let outside = format!(
        "addr add {}/32 dev {interface}\n\
         addr add {}/128 dev {interface} nodad\n\
         link set {interface} up\n\
         route add {}/32 dev {interface}\n\
         route add {}/128 dev {interface}\n",
        gateway.v4, gateway.v6, ip.v4, ip.v6
    );
    let inside = format!(
        "link set eth0 up\n\
         addr add {}/32 dev eth0\n\
         addr add {}/128 dev eth0 nodad\n\
         route add {}/32 dev eth0\n\
         route add {}/128 dev eth0\n{}",
        ip.v4,
        ip.v6,
        gateway.v4,
        gateway.v6,
        default_routes(gateway)
    );
    (outside, inside)
}

/// The same; in hairpin mode, as flannel asks for it.
fn by_bridge(node: &Node, pod: &Host, interface: &str) -> (String, String) {
    let outside = format!(
        "link set {interface} master {POD_BRIDGE} up\n\
         link set {interface} type bridge_slave hairpin on\n"
    );
    let inside = format!(
        "link set eth0 up\n\
         addr add {}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n{}",
        pod.ip.v4,
        pod.ip.v6,
        default_routes(node.gateway())
    );
    (outside, inside)
}

fn default_routes(gateway: Pair) -> String {
    format!(
        "route add default via {} dev eth0\nroute add default via {} dev eth0\n",
        gateway.v4, gateway.v6
    )
}
