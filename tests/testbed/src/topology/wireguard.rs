//! WireGuard between two nodes, set up by the kernel's own interface (include/uapi/linux/wireguard.h), so that no tool of it is needed.

use std::io;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

const PORT: u16 = 51820;

/// The pairs of RFC 7748 section 6.1: what one end keeps, and what the other knows of it.
const KEYS: [[&str; 2]; 2] = [
    [
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ],
    [
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ],
];

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NETLINK_GENERIC: i32 = 16;

/// Node `number` of the first two speaks to the other, at `peer`, whatever the packets' addresses are.
pub(super) fn configure(netns: &Netns, device: &str, number: u8, peer: Ipv4Addr) -> Result<()> {
    let own = usize::from(number - 1) & 1;
    netns
        .run(|| set(device, &KEYS[own], &KEYS[own ^ 1], peer))
        .with_context(|| format!("setting up {device} in {}", netns.name()))
}

fn set(device: &str, own: &[&str; 2], other: &[&str; 2], peer: Ipv4Addr) -> Result<()> {
    let socket = Socket::new(
        Domain::from(nix::libc::AF_NETLINK),
        Type::RAW,
        Some(NETLINK_GENERIC.into()),
    )?;
    let family = attribute(CTRL_ATTR_FAMILY_NAME, b"wireguard\0");
    let answer = ask(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &family)?;
    let family = find(answer.get(20..).unwrap_or_default(), CTRL_ATTR_FAMILY_ID)
        .and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)))
        .context("the kernel tells no number of WireGuard's")?;
    let mut endpoint = Vec::new();
    endpoint.extend((nix::libc::AF_INET as u16).to_ne_bytes());
    endpoint.extend(PORT.to_be_bytes());
    endpoint.extend(peer.octets());
    endpoint.extend([0; 8]);
    let everything = |family: i32, bytes: &[u8]| {
        nested(
            0,
            &[
                attribute(WGALLOWEDIP_A_FAMILY, &(family as u16).to_ne_bytes()),
                attribute(WGALLOWEDIP_A_IPADDR, bytes),
                attribute(WGALLOWEDIP_A_CIDR_MASK, &[0]),
            ],
        )
    };
    let peer = nested(
        0,
        &[
            attribute(WGPEER_A_PUBLIC_KEY, &key(other[1])),
            attribute(WGPEER_A_ENDPOINT, &endpoint),
            nested(
                WGPEER_A_ALLOWEDIPS,
                &[
                    everything(nix::libc::AF_INET, &[0; 4]),
                    everything(nix::libc::AF_INET6, &[0; 16]),
                ],
            ),
        ],
    );
    let request = [
        attribute(WGDEVICE_A_IFINDEX, &if_nametoindex(device)?.to_ne_bytes()),
        attribute(WGDEVICE_A_PRIVATE_KEY, &key(own[0])),
        attribute(WGDEVICE_A_LISTEN_PORT, &PORT.to_ne_bytes()),
        nested(WGDEVICE_A_PEERS, &[peer]),
    ]
    .concat();
    ask(&socket, family, WG_CMD_SET_DEVICE, &request).map(drop)
}

fn key(hex: &str) -> [u8; 32] {
    std::array::from_fn(|at| {
        u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a key in hexadecimal digits")
    })
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &parts.concat())
}

/// The value of an attribute among others.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let value = attributes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// Sends a request; gives the first message that answers it, header included.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8]) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    message.extend((20 + attributes.len() as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    socket.send(&message)?;
    let mut room = vec![std::mem::MaybeUninit::<u8>::uninit(); 1 << 14];
    let len = socket.recv(&mut room)?;
    // SAFETY: the call has filled as much.
    let answer: Vec<u8> = room[..len]
        .iter()
        .map(|byte| unsafe { byte.assume_init() })
        .collect();
    let word = |at: usize| {
        answer
            .get(at..at + 4)
            .map(|word| i32::from_ne_bytes(word.try_into().expect("four bytes")))
    };
    let is_error = answer.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes());
    match (is_error, word(16)) {
        (true, Some(0)) | (false, _) => {
            // The acknowledgement that follows an answer.
            if !is_error {
                let _ = socket.recv(&mut room);
            }
            Ok(answer)
        }
        (true, Some(code)) => Err(io::Error::from_raw_os_error(-code).into()),
        (true, None) => bail!("the kernel's answer is cut off"),
    }
}
