//! What the programs know about network devices.

use crate::{
    abi::IfIndex,
    addr::{Addr, Ip4, Ip6},
};

/// Value of the device table, keyed by interface index.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Device {
    /// The address that this node uses towards what is behind the device: the device's own, else its
    /// master's, else the node's primary one. It is the source of a full proxy's packets.
    pub addr4: Ip4,
    /// The same for IPv6 (never a link-local one).
    pub addr6: Ip6,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u32,
    pub flags: DeviceFlags,
    pub mac: [u8; 6],
    /// Another MAC whose frames are this device's: the bridge's for a port of it. Zeroes for none.
    pub also: [u8; 6],
    pub unused: u16,
    /// The device whose packets they are for the network layer, where it is another: the bridge of a port. Else [`IfIndex::NONE`].
    pub above: IfIndex,
}

impl Device {
    /// This node's address of a family towards what is behind the device; unspecified for none.
    #[inline(always)]
    pub fn addr<A: Addr>(&self) -> A {
        A::of_either(self.addr4, self.addr6)
    }
}

/// What a device is to the datapath: one of these. Each has a bit of its own, so that the programs ask for it without a branch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum DeviceKind {
    /// Has no programs; packets may go out by it.
    Plain = 0,
    /// Leads out of the node: a NIC.
    Uplink = 1,
    /// Leads out of the node: a tunnel.
    Tunnel = 1 << 1,
    /// A pod's host-side interface.
    Workload = 1 << 2,
    /// The loopback device.
    Loopback = 1 << 3,
}

/// What stands before the network header of packets at a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Link {
    /// Nothing: a tunnel of layer 3, a tun device, PPP.
    None = 0,
    Ethernet = 1 << 4,
}

/// Which sources of packets a device takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Sources {
    All = 0,
    /// Those to which the way back is by this device (strict reverse path, RFC 3704 section 2.2), as `rp_filter` 1 of the device, or of
    /// the bridge above it, asks.
    Strict = 1 << 5,
    /// Those to which there is any way back (`rp_filter` 2).
    Loose = 1 << 6,
}

/// A device's kind, its link header and the sources that it takes, in one word of a map.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct DeviceFlags(u16);

impl DeviceFlags {
    pub const fn new(kind: DeviceKind, link: Link, sources: Sources) -> Self {
        Self(kind as u16 | link as u16 | sources as u16)
    }

    /// Of a kind, whatever its link header and its sources.
    pub const fn of(kind: DeviceKind) -> Self {
        Self(kind as u16)
    }

    /// The same device with another link header.
    #[must_use]
    pub const fn with_link(self, link: Link) -> Self {
        Self(self.0 & !(Link::Ethernet as u16) | link as u16)
    }

    /// The same device, which takes other sources.
    #[must_use]
    pub const fn with_sources(self, sources: Sources) -> Self {
        let others = Sources::Strict as u16 | Sources::Loose as u16;
        Self(self.0 & !others | sources as u16)
    }

    /// Is it of this kind? Of [`DeviceKind::Plain`] nobody asks: it has no bit.
    #[inline(always)]
    pub const fn is(self, kind: DeviceKind) -> bool {
        self.0 & kind as u16 != 0
    }

    /// The same as a number, 1 or 0, without a branch.
    #[inline(always)]
    pub const fn count(self, kind: DeviceKind) -> u32 {
        ((self.0 / kind as u16) & 1) as u32
    }

    /// Does it lead out of the node?
    #[inline(always)]
    pub const fn leads_out(self) -> bool {
        self.0 & (DeviceKind::Uplink as u16 | DeviceKind::Tunnel as u16) != 0
    }

    #[inline(always)]
    pub const fn link(self) -> Link {
        if self.is_bare() {
            Link::None
        } else {
            Link::Ethernet
        }
    }

    /// Is there no link header? One question, where [`Self::link`] makes two ways of it for the verifier.
    #[inline(always)]
    pub const fn is_bare(self) -> bool {
        self.0 & Link::Ethernet as u16 == 0
    }

    /// Are these the sources that it takes?
    #[inline(always)]
    pub const fn takes(self, sources: Sources) -> bool {
        let asked = self.0 & (Sources::Strict as u16 | Sources::Loose as u16);
        asked == sources as u16
    }

    pub const fn sources(self) -> Sources {
        if self.takes(Sources::Strict) {
            Sources::Strict
        } else if self.takes(Sources::Loose) {
            Sources::Loose
        } else {
            Sources::All
        }
    }
}

primitive!(DeviceFlags = 1 u16 as "u16");
layout!(Device {
    addr4,
    addr6,
    mtu,
    flags,
    mac,
    also,
    unused,
    above
});

const _: () = assert!(size_of::<Device>() == 44);

/// Key of the table of next hops: whom the hints of flows lead to. Its value is when one was last looked up ([`super::Jiffies`]);
/// the agent keeps the kernel's neighbour entries of these alive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct NextHop {
    /// The next hop's address; of IPv4 the first word alone. Network byte order.
    pub addr: [u32; 4],
    pub ifindex: IfIndex,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
}

layout!(NextHop {
    addr,
    ifindex,
    family
});

const _: () = assert!(size_of::<NextHop>() == 24);
