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
    /// Bits of [`device_flags`].
    pub flags: u16,
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

pub mod device_flags {
    /// Leads out of the node: a NIC.
    pub const UPLINK: u16 = 1;
    /// Leads out of the node: a tunnel.
    pub const TUNNEL: u16 = 1 << 1;
    /// A pod's host-side interface.
    pub const WORKLOAD: u16 = 1 << 2;
    /// The loopback device.
    pub const LOOPBACK: u16 = 1 << 3;
    /// The device has Ethernet headers.
    pub const ETHERNET: u16 = 1 << 4;
    /// A packet's source is taken only if the way back to it is by this device (strict reverse path, RFC 3704 section 2.2), as
    /// `rp_filter` 1 of the device, or of the bridge above it, asks.
    pub const SOURCE_STRICT: u16 = 1 << 5;
    /// A packet's source is taken only if there is any way back to it (`rp_filter` 2).
    pub const SOURCE_LOOSE: u16 = 1 << 6;
}

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
