//! Frames from their fields, checksums in full.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, NetHeaders, PacketBuilder, PacketHeaders,
    PayloadSlice, SingleVlanHeader, TcpHeader, TransportHeader, VlanHeader, VlanId,
};
use testbed::sockets::Protocol;

use crate::sctp;

pub const ETHERNET: usize = 14;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The source and the destination of a frame.
pub type Link = [[u8; 6]; 2];

/// A TCP, UDP or SCTP packet.
#[derive(Clone, Debug)]
pub struct Frame {
    pub link: Link,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: Protocol,
    pub ttl: u8,
    pub tcp: Tcp,
    pub payload: Vec<u8>,
    /// IPv4 options (no-operations) or an IPv6 destination options header (padding).
    pub options: bool,
    pub vlan: bool,
    /// UDP only.
    pub no_checksum: bool,
}

/// What of a TCP header varies. SCTP has the chunk that says the same.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tcp {
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub ack: bool,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
}

impl Frame {
    pub fn from(self, source: SocketAddr) -> Self {
        Self { source, ..self }
    }

    pub fn to(self, destination: SocketAddr) -> Self {
        Self {
            destination,
            ..self
        }
    }

    /// As a router passes it on.
    pub fn forwarded(self, link: Link) -> Self {
        Self {
            link,
            ttl: self.ttl - 1,
            ..self
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ip = self.ip();
        let [source, destination] = self.link;
        let link = PacketBuilder::ethernet2(source, destination);
        let step = if self.vlan {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(7).expect("7 is a VLAN"),
                ..Default::default()
            };
            link.vlan(VlanHeader::Single(tag)).ip(ip)
        } else {
            link.ip(ip)
        };
        let (from, to) = (self.source.port(), self.destination.port());
        let mut bytes = Vec::new();
        match self.protocol {
            Protocol::Tcp => {
                let mut header = TcpHeader::new(from, to, self.tcp.sequence, self.tcp.window);
                (header.syn, header.fin, header.rst, header.ack) =
                    (self.tcp.syn, self.tcp.fin, self.tcp.rst, self.tcp.ack);
                header.acknowledgment_number = self.tcp.acknowledgment;
                step.tcp_header(header).write(&mut bytes, &self.payload)
            }
            Protocol::Udp => step.udp(from, to).write(&mut bytes, &self.payload),
            Protocol::Sctp => {
                let packet = sctp::packet([from, to], &self.tcp, &self.payload);
                step.write(&mut bytes, IpNumber::SCTP, &packet)
            }
        }
        .expect("a frame can be built from fields that fit");
        if self.no_checksum {
            let at = self.transport() + 6;
            bytes[at..at + 2].fill(0);
        }
        bytes
    }

    /// The first `len` bytes behind its IP header, which says that there is no more. A packet without options.
    pub fn cut_to(&self, len: usize) -> Vec<u8> {
        let whole = self.bytes();
        let (headers, segment) = whole.split_at(self.transport());
        let mut bytes = headers[..ETHERNET].to_vec();
        match self.ip() {
            IpHeaders::Ipv4(mut header, _) => {
                header.set_payload_len(len).expect("it is short");
                header.header_checksum = header.calc_header_checksum();
                bytes.extend_from_slice(&header.to_bytes());
            }
            IpHeaders::Ipv6(mut header, _) => {
                header.payload_length = len as u16;
                bytes.extend_from_slice(&header.to_bytes());
            }
        }
        bytes.extend_from_slice(&segment[..len]);
        bytes
    }

    /// Offset of the transport header.
    pub fn transport(&self) -> usize {
        let ip = if self.source.is_ipv4() {
            20 + if self.options { 4 } else { 0 }
        } else {
            40 + if self.options { 8 } else { 0 }
        };
        ETHERNET + ip + if self.vlan { 4 } else { 0 }
    }

    /// The packet from its IP header on, up to `transport` bytes of its transport header: as an ICMP error quotes it.
    pub fn quotation(&self, transport: usize) -> Vec<u8> {
        self.bytes()[ETHERNET..self.transport() + transport].to_vec()
    }

    /// Length of the transport header; of SCTP's that and what begins its first chunk.
    pub fn transport_len(&self) -> usize {
        match self.protocol {
            Protocol::Tcp => TCP_HEADER,
            Protocol::Udp => UDP_HEADER,
            Protocol::Sctp => sctp::HEADERS,
        }
    }

    /// The packet in two fragments.
    pub fn fragments(&self) -> [Vec<u8>; 2] {
        const CUT: usize = 24;
        let whole = self.bytes();
        let (headers, data) = whole.split_at(self.transport());
        let fragment = |offset: usize, data: &[u8], more: bool| {
            let mut bytes = headers[..ETHERNET].to_vec();
            let units = ((offset / 8) as u16)
                .try_into()
                .expect("a small offset fits");
            match self.ip() {
                IpHeaders::Ipv4(mut header, _) => {
                    header.identification = 77;
                    header.dont_fragment = false;
                    header.more_fragments = more;
                    header.fragment_offset = units;
                    header.set_payload_len(data.len()).expect("it is short");
                    header.header_checksum = header.calc_header_checksum();
                    bytes.extend_from_slice(&header.to_bytes());
                }
                IpHeaders::Ipv6(mut header, _) => {
                    let extension = Ipv6FragmentHeader::new(header.next_header, units, more, 77);
                    header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                    header.payload_length = data.len() as u16 + 8;
                    bytes.extend_from_slice(&header.to_bytes());
                    bytes.extend_from_slice(&extension.to_bytes());
                }
            }
            bytes.extend_from_slice(data);
            bytes
        };
        [
            fragment(0, &data[..CUT], true),
            fragment(CUT, &data[CUT..], false),
        ]
    }

    fn ip(&self) -> IpHeaders {
        let number = match self.protocol {
            Protocol::Tcp => IpNumber::TCP,
            Protocol::Udp => IpNumber::UDP,
            Protocol::Sctp => IpNumber::SCTP,
        };
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, number, source.octets(), destination.octets())
                        .expect("an empty payload fits");
                if self.options {
                    header.options = Ipv4Options::from([1, 1, 1, 1]);
                }
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut extensions = Ipv6Extensions::default();
                let mut next_header = number;
                if self.options {
                    // PadN over the six bytes that fill the first eight.
                    let padding = Ipv6RawExtHeader::new_raw(number, &[1, 4, 0, 0, 0, 0]);
                    extensions.destination_options = Some(padding.expect("six bytes fill it"));
                    next_header = IpNumber::IPV6_DESTINATION_OPTIONS;
                }
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                IpHeaders::Ipv6(header, extensions)
            }
            (source, destination) => panic!("{source} and {destination} are not of one family"),
        }
    }
}

/// What an ICMP error is about.
#[derive(Clone, Copy, Debug)]
pub enum Error {
    PortUnreachable,
    TooBig(u16),
}

/// An ICMP error with the hop limit 64.
pub fn icmp_error(link: Link, from: IpAddr, to: IpAddr, error: Error, quotation: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(link[0], link[1]);
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (code, rest) = match error {
                Error::PortUnreachable => (3, 0),
                Error::TooBig(mtu) => (4, u32::from(mtu)),
            };
            builder
                .ipv4(from.octets(), to.octets(), 64)
                .icmpv4_raw(3, code, rest.to_be_bytes())
                .write(&mut bytes, quotation)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (kind, code, rest) = match error {
                Error::PortUnreachable => (1, 4, 0),
                Error::TooBig(mtu) => (2, 0, u32::from(mtu)),
            };
            builder
                .ipv6(from.octets(), to.octets(), 64)
                .icmpv6_raw(kind, code, rest.to_be_bytes())
                .write(&mut bytes, quotation)
        }
        (from, to) => panic!("{from} and {to} are not of one family"),
    }
    .expect("a quotation is short");
    bytes
}

/// Counts the hop limit of an untagged packet without options down by one.
pub fn count_down(frame: &mut [u8]) {
    let ip = &mut frame[ETHERNET..];
    if ip[0] >> 4 == 6 {
        ip[7] -= 1;
        return;
    }
    ip[8] -= 1;
    // The hop limit is the high byte of its word: the sum of all grows by 0x100 (RFC 1141).
    let sum = u32::from(u16::from_be_bytes([ip[10], ip[11]])) + 0x100;
    let sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(sum as u16).to_be_bytes());
}

/// The checksum fields of an untagged TCP, UDP or SCTP packet, with their names.
fn checksums(packet: &[u8]) -> Vec<(&'static str, Range<usize>)> {
    let Ok(headers) = PacketHeaders::from_ethernet_slice(packet) else {
        return Vec::new();
    };
    let mut fields = Vec::new();
    if matches!(headers.net, Some(NetHeaders::Ipv4(..))) {
        fields.push(("the IPv4 header's checksum", ETHERNET + 10..ETHERNET + 12));
    }
    let net = headers.net.map_or(0, |net| net.header_len());
    let transport = ETHERNET + net;
    match headers.transport {
        Some(TransportHeader::Tcp(_)) => {
            fields.push(("the TCP checksum", transport + 16..transport + 18))
        }
        Some(TransportHeader::Udp(_)) => {
            fields.push(("the UDP checksum", transport + 6..transport + 8))
        }
        None if is_sctp(&headers.payload) => {
            fields.push(("the SCTP checksum", transport + 8..transport + 12))
        }
        _ => {}
    }
    fields
}

fn is_sctp(payload: &PayloadSlice) -> bool {
    matches!(payload, PayloadSlice::Ip(ip) if ip.ip_number == IpNumber::SCTP)
}

/// The checksum in which `found` differs from `expected`, if that is all.
pub fn wrong_checksum(found: &[u8], expected: &[u8]) -> Option<&'static str> {
    let differs: Vec<_> = (0..found.len().max(expected.len()))
        .filter(|&at| found.get(at) != expected.get(at))
        .collect();
    checksums(expected)
        .into_iter()
        .find(|(_, field)| differs.iter().all(|at| field.contains(at)))
        .map(|(name, _)| name)
}

/// Another transport checksum than the right one.
pub fn spoil_checksum(packet: &mut [u8]) {
    if let Some((_, field)) = checksums(packet).pop() {
        packet[field.start] ^= 0x55;
    }
}
