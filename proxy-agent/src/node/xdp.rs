//! XDP at a device: what is attached, and what its driver says that it can do.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use proxy_common::abi::IfIndex;
use rtnetlink::{
    new_connection,
    packet_route::link::{LinkAttribute, LinkXdp, XdpAttached},
    sys::{Socket, SocketAddr},
};

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

const NETLINK_GENERIC: isize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NETLINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
/// `nlctrl` (include/uapi/linux/genetlink.h): its own family, the command that looks one up, its attributes.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
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
    let mut socket = Socket::new(NETLINK_GENERIC).context("opening a generic netlink socket")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = ask(
        &socket,
        GENL_ID_CTRL,
        CTRL_CMD_GETFAMILY,
        &attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0"),
    )
    .and_then(|answer| {
        find(&answer, CTRL_ATTR_FAMILY_ID, |value| {
            Some(u16::from_ne_bytes(value.try_into().ok()?))
        })
    })
    .context("the kernel tells no driver's features (since Linux 6.3)")?;
    let answer = ask(
        &socket,
        family,
        NETDEV_CMD_DEV_GET,
        &attribute(NETDEV_A_DEV_IFINDEX, &ifindex.0.to_ne_bytes()),
    )?;
    let features = find(&answer, NETDEV_A_DEV_XDP_FEATURES, |value| {
        Some(u64::from_ne_bytes(value.try_into().ok()?))
    })?;
    Ok(features & NETDEV_XDP_ACT_BASIC != 0)
}

/// One request, and the attributes of its answer.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8]) -> Result<Vec<u8>> {
    let length = NETLINK_HEADER + GENERIC_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length)?.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one question is open at a time, and the kernel fills in the port.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    ensure!(
        answer.len() >= NETLINK_HEADER + GENERIC_HEADER,
        "the answer is cut short"
    );
    if answer[4..6] == NLMSG_ERROR.to_ne_bytes() {
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        bail!(std::io::Error::from_raw_os_error(-code));
    }
    Ok(answer[NETLINK_HEADER + GENERIC_HEADER..].to_vec())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("attributes of this module are short");
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of this kind.
fn find<T>(mut attributes: &[u8], kind: u16, read: impl Fn(&[u8]) -> Option<T>) -> Result<T> {
    while let Some((head, _)) = attributes.split_at_checked(4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = attributes.get(4..length) else {
            break;
        };
        if u16::from_ne_bytes([head[2], head[3]]) == kind {
            return read(value).context("an attribute has another length than it should");
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    bail!("the kernel's answer has no attribute {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others() {
        let mut bytes = attribute(1, &[7]);
        bytes.extend(attribute(3, &9_u64.to_ne_bytes()));
        let read = |value: &[u8]| Some(u64::from_ne_bytes(value.try_into().ok()?));
        assert_eq!(find(&bytes, 3, read).unwrap(), 9);
        find(&bytes, 2, read).unwrap_err();
        find(&bytes, 1, read).unwrap_err();
        find(&bytes[..10], 3, read).unwrap_err();
    }

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
