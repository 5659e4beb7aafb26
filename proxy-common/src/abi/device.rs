//! What the programs know about network devices.

use crate::addr::{Ip4, Ip6};

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
}

const _: () = assert!(size_of::<Device>() == 32);
