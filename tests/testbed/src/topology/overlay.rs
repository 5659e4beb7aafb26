//! Pods of different nodes joined by VXLAN, as flannel does it: one device per node whose address is the first of the
//! node's pod range, static neighbours and forwarding entries, routes on link through the device.

use anyhow::Result;

use super::Host;
use crate::address::{self, Mac};
use crate::masquerade;
use crate::netns::Netns;

pub(super) const DEVICE: &str = "flannel.1";

/// What fits into a 1500-byte IPv4 underlay.
pub(super) const MTU: u16 = 1450;

pub(super) struct Overlay {
    mac: Mac,
}

impl Overlay {
    pub(super) fn create(host: &Host, number: u8, mtu: u16) -> Result<Self> {
        let mac = Mac::fresh();
        let own = address::overlay(number);
        host.netns.ip(&format!(
            "link add {DEVICE} address {mac} mtu {mtu} type vxlan id 1 dev eth0 local {} dstport 8472 nolearning\n\
             addr add {}/32 dev {DEVICE}\n\
             addr add {}/128 dev {DEVICE} nodad\n\
             link set {DEVICE} up\n",
            host.ip.v4, own.v4, own.v6
        ))?;
        if masquerade::available() {
            masquerade::install(&host.netns, number)?;
        }
        Ok(Self { mac })
    }

    /// Makes `netns` reach the pods of the node `host`, whose overlay device this is.
    pub(super) fn add_peer_on(&self, netns: &Netns, host: &Host, number: u8) -> Result<()> {
        let (via, mac) = (address::overlay(number), self.mac);
        netns.ip(&format!(
            "neigh add {} lladdr {mac} dev {DEVICE} nud permanent\n\
             neigh add {} lladdr {mac} dev {DEVICE} nud permanent\n\
             route add {}/24 via {} dev {DEVICE} onlink\n\
             route add {}/64 via {} dev {DEVICE} onlink\n",
            via.v4, via.v6, via.v4, via.v4, via.v6, via.v6
        ))?;
        netns.batch(
            "bridge",
            &["-batch", "-"],
            &format!("fdb add {mac} dev {DEVICE} dst {}\n", host.ip.v4),
        )
    }
}
