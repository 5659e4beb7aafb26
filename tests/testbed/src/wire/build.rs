//! Frames that a socket would not send: tags, options, extension headers, forged segments and errors, single fragments.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4HeaderSlice, Ipv4Options, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, PacketBuilderStep,
    SingleVlanHeader, TcpHeader, VlanHeader, VlanId,
};

use crate::address::Mac;

/// The hop limit of what is built.
pub const TTL: u8 = 64;
const WINDOW: u16 = 65_535;
/// Where the IP header of an untagged frame begins.
pub const L3: usize = 14;
/// The protocol number of IPv6's fragment header.
const IPV6_FRAGMENT: u8 = 44;

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

/// A TCP segment without options.
#[derive(Clone, Copy, Default, Debug)]
pub struct Segment<'a> {
    pub sequence: u32,
    /// Of what it acknowledges, if anything.
    pub acknowledges: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload: &'a [u8],
}

/// A segment that opens a TCP connection, in a frame.
pub fn syn(link: Link, from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let opens = Segment {
        sequence: 1,
        syn: true,
        ..Segment::default()
    };
    tcp(link, from, to, opens)
}

/// Any TCP segment, in a frame.
pub fn tcp(link: Link, from: SocketAddr, to: SocketAddr, segment: Segment) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(from.port(), to.port(), segment.sequence, WINDOW);
    header.ack = segment.acknowledges.is_some();
    header.acknowledgment_number = segment.acknowledges.unwrap_or_default();
    header.syn = segment.syn;
    header.fin = segment.fin;
    header.rst = segment.rst;
    let step = network(link, from.ip(), to.ip(), IpNumber::TCP, Extra::Nothing)?;
    let step = step.tcp_header(header);
    let mut frame = Vec::with_capacity(step.size(segment.payload.len()));
    step.write(&mut frame, segment.payload)?;
    Ok(frame)
}

/// An ICMP error of this type and code about `quoted`, which begins with an IP header, in a frame.
pub fn icmp_error(
    link: Link,
    from: IpAddr,
    to: IpAddr,
    (kind, code): (u8, u8),
    quoted: &[u8],
) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    if from.is_ipv4() {
        network(link, from, to, IpNumber::ICMP, Extra::Nothing)?
            .icmpv4_raw(kind, code, [0; 4])
            .write(&mut frame, quoted)?;
    } else {
        network(link, from, to, IpNumber::IPV6_ICMP, Extra::Nothing)?
            .icmpv6_raw(kind, code, [0; 4])
            .write(&mut frame, quoted)?;
    }
    Ok(frame)
}

/// Cuts a UDP datagram in a plain frame into fragments that hold so many bytes of it each, a multiple of 8.
pub fn fragments(frame: &[u8], identification: u16, length: usize) -> Result<Vec<Vec<u8>>> {
    ensure!(length.is_multiple_of(8), "{length} is no multiple of 8");
    let is_v4 = frame[L3] >> 4 == 4;
    let header_length = if is_v4 { 20 } else { 40 };
    let (headers, datagram) = frame.split_at(L3 + header_length);
    let count = datagram.len().div_ceil(length);
    let fragment = |(number, part): (usize, &[u8])| {
        let mut fragment = headers.to_vec();
        let more = u16::from(number + 1 < count);
        let offset = (number * length) as u16;
        if is_v4 {
            let total = (header_length + part.len()) as u16;
            fragment[L3 + 2..L3 + 4].copy_from_slice(&total.to_be_bytes());
            fragment[L3 + 4..L3 + 6].copy_from_slice(&identification.to_be_bytes());
            let field = (offset / 8) | (more << 13);
            fragment[L3 + 6..L3 + 8].copy_from_slice(&field.to_be_bytes());
            sum_ipv4_header(&mut fragment);
        } else {
            let payload = (8 + part.len()) as u16;
            fragment[L3 + 4..L3 + 6].copy_from_slice(&payload.to_be_bytes());
            let next = std::mem::replace(&mut fragment[L3 + 6], IPV6_FRAGMENT);
            fragment.extend([next, 0]);
            fragment.extend((offset | more).to_be_bytes());
            fragment.extend(u32::from(identification).to_be_bytes());
        }
        fragment.extend(part);
        fragment
    };
    Ok(datagram.chunks(length).enumerate().map(fragment).collect())
}

/// Computes the checksum of a plain IPv4 header anew, after a change by hand.
pub fn sum_ipv4_header(frame: &mut [u8]) {
    frame[L3 + 10..L3 + 12].fill(0);
    let header = Ipv4HeaderSlice::from_slice(&frame[L3..]).expect("a plain IPv4 header");
    let sum = header.to_header().calc_header_checksum();
    frame[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
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
