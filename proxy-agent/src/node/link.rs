//! A network device, as netlink tells of it.

use std::net::IpAddr;

use proxy_common::abi::IfIndex;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};

use super::routes::Ways;
use crate::model::Cidr;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub name: String,
    pub kind: Kind,
    /// The kernel's word for its kind; `None` for hardware.
    pub software: Option<String>,
    pub up: bool,
    pub framing: Framing,
    pub mac: [u8; 6],
    pub mtu: u32,
    /// Index of the bridge, bond or VRF that it is a part of.
    pub master: Option<IfIndex>,
    /// Index of the device of this network namespace that it is stacked on.
    pub lower: Option<IfIndex>,
    /// Its other end is in another network namespace.
    pub peer_elsewhere: bool,
    /// In the kernel's order.
    pub addresses: Vec<Address>,
    pub ways: Ways,
    /// What the kernel asks of a packet's source: the higher one of `conf.all` and its own `rp_filter`.
    pub rp_filter: u8,
    /// It takes the VLAN's tag off what it receives (`ethtool -k`: rx-vlan-offload), so that an XDP program sees none. Read of devices
    /// with VLANs alone.
    pub takes_tags_off: bool,
}

/// What stands before the network header of its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    Ethernet,
    /// Nothing: those of which the kernel knows that, too, and so takes off what a redirect brings along
    /// (include/linux/if_arp.h, `dev_is_mac_header_xmit`).
    None,
    /// A header that the programs do not read.
    Other,
}

/// What sort of device it is, as far as that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Loopback,
    /// A NIC: no software behind it.
    Physical,
    Veth,
    Bridge,
    /// Encapsulates what goes out.
    Tunnel,
    /// Combines NICs (bond, team).
    Aggregate,
    /// Has a part of another device's traffic (VLAN, macvlan, ipvlan).
    Stacked,
    Vrf,
    Other,
}

/// An address of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    pub addr: IpAddr,
    /// Length of the prefix that is on link.
    pub prefix: u8,
    /// Good beyond the link.
    pub global: bool,
    /// Not to be taken for a source: IPv6 says so of a deprecated, temporary, tentative or optimistic one, IPv4 of one
    /// that is secondary to another of its subnet.
    pub passive: bool,
}

impl Link {
    pub(super) fn of(message: &LinkMessage) -> Self {
        let header = &message.header;
        let mut link = Self {
            name: String::new(),
            kind: match header.link_layer_type {
                LinkLayerType::Loopback => Kind::Loopback,
                LinkLayerType::Ether => Kind::Physical,
                _ => Kind::Other,
            },
            software: None,
            up: header.flags.contains(LinkFlags::Up),
            framing: Framing::of(header.link_layer_type),
            mac: [0; 6],
            mtu: 0,
            master: None,
            lower: None,
            peer_elsewhere: false,
            addresses: Vec::new(),
            ways: Ways::default(),
            rp_filter: 0,
            takes_tags_off: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    if let Ok(mac) = <[u8; 6]>::try_from(bytes.as_slice()) {
                        link.mac = mac;
                    }
                }
                LinkAttribute::Controller(index) => link.master = Some(IfIndex(*index)),
                LinkAttribute::Link(index) => link.lower = Some(IfIndex(*index)),
                LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind_of(kind);
                            link.software = Some(kind.to_string());
                        }
                    }
                }
                _ => {}
            }
        }
        // A tun device, PPP, a modem: like a tunnel, it leads to whom its routes say.
        if link.kind == Kind::Other && link.framing == Framing::None {
            link.kind = Kind::Tunnel;
        }
        // The index of another namespace's device says nothing here, and a veth is stacked on nothing.
        if link.peer_elsewhere || link.kind == Kind::Veth {
            link.lower = None;
        }
        link
    }

    /// Does it have an address that is good beyond the link, of this family?
    pub fn has_global(&self, family: fn(&IpAddr) -> bool) -> bool {
        self.addresses
            .iter()
            .any(|address| address.global && family(&address.addr))
    }

    /// Does it have an address of either family that is good beyond the link?
    pub fn has_address(&self) -> bool {
        self.addresses.iter().any(|address| address.global)
    }

    /// Is it a VLAN of another device?
    pub fn is_vlan(&self) -> bool {
        self.software.as_deref() == Some("vlan")
    }

    /// Are others than itself on link, by the prefix of an address?
    pub fn has_subnet(&self) -> bool {
        self.addresses
            .iter()
            .any(|address| address.global && address.prefix < address.bits())
    }
}

impl Framing {
    fn of(kind: LinkLayerType) -> Self {
        match kind {
            // The loopback device has Ethernet headers of zeroes.
            LinkLayerType::Ether | LinkLayerType::Loopback => Self::Ethernet,
            LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre
            | LinkLayerType::Void
            | LinkLayerType::None
            | LinkLayerType::Rawip
            | LinkLayerType::Pimreg
            // Since Linux 6.6, and in the stable series since September 2023 (a4f39c9f14a6).
            | LinkLayerType::Ppp => Self::None,
            _ => Self::Other,
        }
    }
}

fn kind_of(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Veth | InfoKind::Netkit => Kind::Veth,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Bond | InfoKind::Team => Kind::Aggregate,
        InfoKind::Vrf => Kind::Vrf,
        InfoKind::Vlan
        | InfoKind::MacVlan
        | InfoKind::MacVtap
        | InfoKind::IpVlan
        | InfoKind::IpVtap
        | InfoKind::MacSec => Kind::Stacked,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::Wireguard
        | InfoKind::Xfrm
        | InfoKind::Vti
        | InfoKind::Vti6 => Kind::Tunnel,
        _ => Kind::Other,
    }
}

impl Address {
    /// The address itself, not that of a point-to-point peer; `None` for one that is in use elsewhere.
    pub(super) fn of(message: &AddressMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(AddressHeaderFlags::Dadfailed) {
            return None;
        }
        let mut local = None;
        let mut other = None;
        let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(addr) => local = Some(*addr),
                AddressAttribute::Address(addr) => other = Some(*addr),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let addr = local.or(other)?;
        let odd = match addr {
            IpAddr::V4(_) => AddressFlags::Secondary,
            // For IPv6, the kernel's `IFA_F_TEMPORARY` is what is secondary for IPv4.
            IpAddr::V6(_) => {
                AddressFlags::Secondary
                    | AddressFlags::Deprecated
                    | AddressFlags::Tentative
                    | AddressFlags::Optimistic
            }
        };
        Some(Self {
            addr,
            prefix: header.prefix_len,
            global: matches!(header.scope, AddressScope::Universe | AddressScope::Site)
                && !addr.is_loopback(),
            passive: flags.intersects(odd),
        })
    }

    /// Is another address on link by this one's prefix?
    pub fn subnet_has(&self, other: IpAddr) -> bool {
        Cidr::new(self.addr, self.prefix.min(self.bits())).is_some_and(|net| net.contains(other))
    }

    pub const fn bits(&self) -> u8 {
        match self.addr {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_what_its_prefix_says() {
        for (own, prefix, other, is_in) in [
            ("192.0.2.1", 24, "192.0.2.254", true),
            ("192.0.2.1", 24, "192.0.3.1", false),
            ("192.0.2.1", 32, "192.0.2.1", true),
            ("192.0.2.1", 32, "192.0.2.2", false),
            ("192.0.2.1", 0, "203.0.113.1", true),
            ("2001:db8::1", 64, "2001:db8::ffff", true),
            ("2001:db8::1", 64, "2001:db8:0:1::1", false),
            ("2001:db8::1", 0, "fd00::1", true),
            ("2001:db8::1", 64, "192.0.2.1", false),
        ] {
            let address = Address {
                addr: own.parse().unwrap(),
                prefix,
                global: true,
                passive: false,
            };
            let other = other.parse().unwrap();
            assert_eq!(address.subnet_has(other), is_in, "{own}/{prefix} {other}");
        }
    }
}
