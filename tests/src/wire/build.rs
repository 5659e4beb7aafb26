//! Frames that a socket would not send: tags, options, extension headers.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6Header, Ipv6RawExtHeader, PacketBuilder, VlanHeader, VlanId,
};
use etherparse::{PacketBuilderStep, SingleVlanHeader};

use crate::address::Mac;

const TTL: u8 = 64;

/// From which to which Ethernet address a frame goes, and under which VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub source: Mac,
    pub destination: Mac,
    pub vlan: Option<u16>,
}

/// What stands between the IP header and the transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    Nothing,
    /// IPv4 options (no-operations) or an IPv6 destination options header (padding).
    Options,
}

/// A UDP datagram in a frame.
pub fn udp(
    link: Link,
    from: SocketAddr,
    to: SocketAddr,
    extra: Extra,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let step = network(link, from.ip(), to.ip(), IpNumber::UDP, extra)?.udp(from.port(), to.port());
    let mut frame = Vec::with_capacity(step.size(payload.len()));
    step.write(&mut frame, payload)?;
    Ok(frame)
}

/// A segment that opens a TCP connection, in a frame.
pub fn syn(link: Link, from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let step = network(link, from.ip(), to.ip(), IpNumber::TCP, Extra::Nothing)?;
    let step = step.tcp(from.port(), to.port(), 1, 65_535).syn();
    let mut frame = Vec::with_capacity(step.size(0));
    step.write(&mut frame, &[])?;
    Ok(frame)
}

fn network(
    link: Link,
    source: IpAddr,
    destination: IpAddr,
    protocol: IpNumber,
    extra: Extra,
) -> Result<PacketBuilderStep<IpHeaders>> {
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header =
                Ipv4Header::new(0, TTL, protocol, source.octets(), destination.octets())?;
            if extra == Extra::Options {
                header.options = Ipv4Options::from([1, 1, 1, 1]);
            }
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut extensions = Ipv6Extensions::default();
            let mut next_header = protocol;
            if extra == Extra::Options {
                // PadN over the six bytes that fill the first eight.
                extensions.destination_options =
                    Some(Ipv6RawExtHeader::new_raw(protocol, &[1, 4, 0, 0, 0, 0])?);
                next_header = IpNumber::IPV6_DESTINATION_OPTIONS;
            }
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header,
                hop_limit: TTL,
                source: source.octets(),
                destination: destination.octets(),
            };
            IpHeaders::Ipv6(header, extensions)
        }
        _ => bail!("{source} and {destination} are not of one family"),
    };
    let ethernet = PacketBuilder::ethernet2(link.source.0, link.destination.0);
    Ok(match link.vlan {
        None => ethernet.ip(ip),
        Some(id) => ethernet
            .vlan(VlanHeader::Single(SingleVlanHeader {
                vlan_id: VlanId::try_new(id)?,
                ..Default::default()
            }))
            .ip(ip),
    })
}
