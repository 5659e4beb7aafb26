//! XDP at a device: what is attached, and what its driver says that it can do.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use proxy_common::abi::IfIndex;
use rtnetlink::{
    new_connection,
    packet_route::link::{LinkAttribute, LinkXdp, XdpAttached},
};

use crate::netlink::{attribute, find, generic};

/// A program at a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XdpAt {
    /// In the driver, or in the NIC; else in the kernel's generic path.
    pub native: bool,
    /// The program's id, where the kernel says it.
    pub program: Option<u32>,
}

/// The devices with an XDP program, by index.
pub async fn xdp_programs() -> Result<BTreeMap<IfIndex, XdpAt>> {
    let (connection, handle, _) = new_connection().context("opening a netlink socket")?;
    let connection = tokio::spawn(connection);
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("listing the network devices")?;
    connection.abort();
    Ok(links
        .iter()
        .filter_map(|link| {
            let xdp = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Xdp(xdp) => Some(xdp),
                    _ => None,
                })?;
            Some((IfIndex(link.header.index), at(xdp)?))
        })
        .collect())
}

fn at(xdp: &[LinkXdp]) -> Option<XdpAt> {
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(mode) => Some(*mode),
        _ => None,
    })?;
    let program = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    (mode != XdpAttached::None).then_some(XdpAt {
        native: mode != XdpAttached::SocketBuffer,
        program,
    })
}

/// `netdev` (include/uapi/linux/netdev.h).
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// Runs programs that pass, drop and send back.
const NETDEV_XDP_ACT_BASIC: u64 = 1;

/// Does the device's driver run XDP programs, by its own word? The kernel is asked for it since 6.3.
///
/// # Errors
/// Where the kernel cannot be asked, or says no word of this device.
pub fn driver_has_xdp(ifindex: IfIndex) -> Result<bool> {
    let netdev = generic::Family::open("netdev")
        .context("the kernel tells no driver's features (since Linux 6.3)")?;
    let asked = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.0.to_ne_bytes());
    let answer = netdev.ask(NETDEV_CMD_DEV_GET, 0, &asked)?;
    let features = find(&answer, NETDEV_A_DEV_XDP_FEATURES)
        .and_then(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)))
        .context("the kernel's answer has no features")?;
    Ok(features & NETDEV_XDP_ACT_BASIC != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_the_driver_is_told_from_one_in_the_generic_path() {
        let xdp = |mode| at(&[LinkXdp::Attached(mode), LinkXdp::ProgId(5)]);
        assert_eq!(xdp(XdpAttached::None), None);
        let native = |native| {
            Some(XdpAt {
                native,
                program: Some(5),
            })
        };
        assert_eq!(xdp(XdpAttached::Driver), native(true));
        assert_eq!(xdp(XdpAttached::SocketBuffer), native(false));
    }
}
