//! Device features that a veth must have switched for native XDP to see what a NIC would show it.

use std::io;

use anyhow::{Context, Result};
use nix::libc;

use crate::interface;
use crate::netns::Netns;

/// Off: the sender finishes its checksums in software, as they would be on a wire.
pub(crate) const SET_TX_CHECKSUM: u32 = 0x17;
/// Off, with the others that this command knows: a VLAN tag stays in the frame instead of beside it.
pub(crate) const SET_FLAGS: u32 = 0x26;
/// On: received frames are polled for and may be merged (`ETHTOOL_SGRO`).
pub(crate) const SET_RECEIVE_OFFLOAD: u32 = 0x2c;

const SIOCETHTOOL: libc::Ioctl = 0x8946;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Switches one feature of `interface` in `netns`.
pub(crate) fn set(netns: &Netns, interface: &str, command: u32, on: bool) -> Result<()> {
    set_value(netns, interface, command, on.into())
}

/// Flags of [`SET_FLAGS`]: tags of VLANs are put in by the device, and taken off by it.
pub(crate) const SEND_TAGS: u32 = 1 << 7;
pub(crate) const RECEIVE_TAGS: u32 = 1 << 8;

/// Switches on these of the features that [`SET_FLAGS`] knows, and off the others.
pub(crate) fn set_flags(netns: &Netns, interface: &str, flags: u32) -> Result<()> {
    set_value(netns, interface, SET_FLAGS, flags)
}

fn set_value(netns: &Netns, interface: &str, command: u32, data: u32) -> Result<()> {
    netns
        .run(|| request(interface, command, data))
        .with_context(|| {
            format!(
                "ethtool command {command:#x} on {interface} in {}",
                netns.name()
            )
        })
}

fn request(interface: &str, command: u32, data: u32) -> io::Result<()> {
    let mut value = EthtoolValue { command, data };
    let data = (&raw mut value).cast();
    let what = libc::__c_anonymous_ifr_ifru { ifru_data: data };
    // SAFETY: the command takes a structure of this layout, which outlives the call.
    unsafe { interface::request(interface, SIOCETHTOOL, what) }
}
