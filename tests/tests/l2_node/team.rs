//! The mode of a team device, which a daemon (teamd) sets by generic netlink: without one, a team carries nothing.

use std::io::Error;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use testbed::netns::Netns;

const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// An attribute that holds attributes.
const NLA_F_NESTED: u16 = 1 << 15;
/// The type of an option that is text (the kernel's include/net/netlink.h).
const NLA_STRING: u8 = 5;

/// `nlctrl` (include/uapi/linux/genetlink.h).
mod control {
    pub const ID: u16 = 16;
    pub const GET_FAMILY: u8 = 3;
    pub const FAMILY_ID: u16 = 1;
    pub const FAMILY_NAME: u16 = 2;
}

/// include/uapi/linux/if_team.h.
mod wanted {
    pub const OPTIONS_SET: u8 = 1;
    pub const TEAM_IFINDEX: u16 = 1;
    pub const LIST_OPTION: u16 = 2;
    pub const ITEM_OPTION: u16 = 1;
    pub const OPTION_NAME: u16 = 1;
    pub const OPTION_TYPE: u16 = 3;
    pub const OPTION_DATA: u16 = 4;
}

/// Gives the team `device`, which has no port yet, its mode: `roundrobin` for one.
pub fn set_mode(netns: &Netns, device: &str, mode: &str) -> Result<()> {
    netns.run(|| {
        let name = attribute(control::FAMILY_NAME, b"team\0");
        let answer = ask(control::ID, control::GET_FAMILY, &name)
            .context("asking for the generic netlink family of teams")?;
        let family = find(&answer, control::FAMILY_ID).context("the family has no number")?;
        let family = u16::from_ne_bytes([family[0], family[1]]);
        let index = if_nametoindex(device)?;
        let option = [
            attribute(wanted::OPTION_NAME, b"mode\0"),
            attribute(wanted::OPTION_TYPE, &[NLA_STRING]),
            attribute(wanted::OPTION_DATA, format!("{mode}\0").as_bytes()),
        ]
        .concat();
        let item = attribute(wanted::ITEM_OPTION | NLA_F_NESTED, &option);
        let attributes = [
            attribute(wanted::TEAM_IFINDEX, &index.to_ne_bytes()),
            attribute(wanted::LIST_OPTION | NLA_F_NESTED, &item),
        ]
        .concat();
        match ask(family, wanted::OPTIONS_SET, &attributes) {
            // The mode is set, and nobody listens to the event that tells of it (team_nl_cmd_options_set, 5.10).
            Err(error) if is_nobody_listens(&error) => Ok(()),
            other => other
                .map(drop)
                .with_context(|| format!("setting the mode of {device} to {mode}")),
        }
    })
}

fn is_nobody_listens(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<Error>().and_then(Error::raw_os_error);
    code == Some(Errno::ESRCH as i32)
}

/// One request; the attributes of its answer, if it has one besides its acknowledgement.
fn ask(family: u16, command: u8, attributes: &[u8]) -> Result<Vec<u8>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    let netlink = netlink.as_raw_fd();
    connect(netlink, &NetlinkAddr::new(0, 0))?;
    let mut message = Vec::new();
    message.extend(u32::try_from(HEADER + GENERIC_HEADER + attributes.len())?.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // The sequence, and the port, which the kernel fills in.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    send(netlink, &message, MsgFlags::empty())?;
    let mut room = [0; 8192];
    let length = recv(netlink, &mut room, MsgFlags::empty())?;
    let answer = &room[..length];
    ensure!(
        answer.len() >= HEADER + GENERIC_HEADER,
        "the answer is cut short"
    );
    if answer[4..6] != NLMSG_ERROR.to_ne_bytes() {
        return Ok(answer[HEADER + GENERIC_HEADER..].to_vec());
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(Vec::new()),
        code => bail!(Error::from_raw_os_error(-code)),
    }
}

/// One attribute, filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("these attributes are short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
