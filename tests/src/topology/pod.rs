//! A pod: a namespace whose `eth0` is a veth to its node.

use std::ops::Deref;

use anyhow::Result;

use super::node::POD_BRIDGE;
use super::{Host, Node, PodLinks};
use crate::address::{self, Mac, Pair};
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
    number: u8,
    host_mtu: u16,
    netns_name: String,
) -> Result<Pod> {
    let host_mac = Mac::fresh();
    let host = Host {
        name: name.to_owned(),
        netns: Netns::create(netns_name)?,
        ip: address::pod(node.number, number),
        mac: Mac::fresh(),
        gateway_mac: match node.links {
            PodLinks::Ptp => host_mac,
            PodLinks::Bridge => node.bridge_mac,
        },
        far_end: None,
    };
    let host_interface = format!("veth{:08x}", u32::from(host.ip.v4));
    let (inside, mac, pod_mtu) = (host.netns.name(), host.mac, node.pod_mtu);
    node.netns().ip(&format!(
        "link add {host_interface} address {host_mac} mtu {host_mtu} type veth \
         peer name eth0 address {mac} mtu {pod_mtu} netns {inside}\n"
    ))?;
    host.netns.ip("link set eth0 up")?;
    match node.links {
        PodLinks::Ptp => attach_by_routes(node, &host, &host_interface)?,
        PodLinks::Bridge => attach_to_bridge(node, &host, &host_interface)?,
    }
    Ok(Pod {
        host,
        node: node.name().to_owned(),
        host_interface,
    })
}

fn attach_by_routes(node: &Node, pod: &Host, interface: &str) -> Result<()> {
    let (gateway, ip) = (node.gateway(), pod.ip);
    node.netns().ip(&format!(
        "addr add {}/32 dev {interface}\n\
         addr add {}/128 dev {interface} nodad\n\
         link set {interface} up\n\
         route add {}/32 dev {interface}\n\
         route add {}/128 dev {interface}\n",
        gateway.v4, gateway.v6, ip.v4, ip.v6
    ))?;
    pod.netns.ip(&format!(
        "addr add {}/32 dev eth0\n\
         addr add {}/128 dev eth0 nodad\n\
         route add {}/32 dev eth0\n\
         route add {}/128 dev eth0\n{}",
        ip.v4,
        ip.v6,
        gateway.v4,
        gateway.v6,
        default_routes(gateway)
    ))
}

/// In hairpin mode, as flannel asks for it.
fn attach_to_bridge(node: &Node, pod: &Host, interface: &str) -> Result<()> {
    node.netns().ip(&format!(
        "link set {interface} master {POD_BRIDGE} up\n\
         link set {interface} type bridge_slave hairpin on\n"
    ))?;
    pod.netns.ip(&format!(
        "addr add {}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n{}",
        pod.ip.v4,
        pod.ip.v6,
        default_routes(node.gateway())
    ))
}

fn default_routes(gateway: Pair) -> String {
    format!(
        "route add default via {} dev eth0\nroute add default via {} dev eth0\n",
        gateway.v4, gateway.v6
    )
}
