//! WireGuard between two nodes, set up by the kernel's own interface (include/uapi/linux/wireguard.h), so that no tool of it is needed.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use proxy_agent::netlink::{NLM_F_ACK, attribute, generic, nested};

use crate::netns::Netns;

/// Each tunnel's number is added to it, as several may end at one host.
const FIRST_PORT: u16 = 51820;

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

/// One end speaks to the other, whatever the packets' addresses are: their own addresses are `[own, peer]`. The end of the lower
/// one has the first keys.
pub(super) fn configure(
    netns: &Netns,
    device: &str,
    [own, peer]: [Ipv4Addr; 2],
    number: u8,
) -> Result<()> {
    let [lower, higher] = &KEYS;
    let (keys, others) = if own < peer {
        (lower, higher)
    } else {
        (higher, lower)
    };
    let port = FIRST_PORT + u16::from(number);
    netns
        .run(|| set(device, keys, others, (peer, port)))
        .with_context(|| format!("setting up {device} in {}", netns.name()))
}

fn set(
    device: &str,
    own: &[&str; 2],
    other: &[&str; 2],
    (peer, port): (Ipv4Addr, u16),
) -> Result<()> {
    let wireguard =
        generic::Family::open("wireguard").context("the kernel tells no number of WireGuard's")?;
    let mut endpoint = Vec::new();
    endpoint.extend((nix::libc::AF_INET as u16).to_ne_bytes());
    endpoint.extend(port.to_be_bytes());
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
        attribute(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes()),
        nested(WGDEVICE_A_PEERS, &[peer]),
    ]
    .concat();
    wireguard.ask(WG_CMD_SET_DEVICE, NLM_F_ACK, &request)?;
    Ok(())
}

fn key(hex: &str) -> [u8; 32] {
    std::array::from_fn(|at| {
        u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a key in hexadecimal digits")
    })
}
