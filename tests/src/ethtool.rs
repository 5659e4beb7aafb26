//! Device features that a veth must have switched for native XDP to see what a NIC would show it.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::libc;

use crate::netns::Netns;

/// Off: the sender finishes its checksums in software, as they would be on a wire.
pub(crate) const SET_TX_CHECKSUM: u32 = 0x17;
/// Off, with the others that this command knows: a VLAN tag stays in the frame instead of beside it.
pub(crate) const SET_FLAGS: u32 = 0x26;
/// On: received frames are polled for and may be merged (`ETHTOOL_SGRO`).
pub(crate) const SET_RECEIVE_OFFLOAD: u32 = 0x2c;

const SIOCETHTOOL: libc::c_ulong = 0x8946;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    data: *mut EthtoolValue,
    unused: [u64; 2],
}

/// Switches one feature of `interface` in `netns`.
pub(crate) fn set(netns: &Netns, interface: &str, command: u32, on: bool) -> Result<()> {
    netns
        .run(|| request(interface, command, on))
        .with_context(|| {
            format!(
                "ethtool command {command:#x} on {interface} in {}",
                netns.name()
            )
        })
}

fn request(interface: &str, command: u32, on: bool) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut value = EthtoolValue {
        command,
        data: on.into(),
    };
    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        data: &raw mut value,
        unused: [0; 2],
    };
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: the request has the layout and size of `struct ifreq` and points to a value that outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
