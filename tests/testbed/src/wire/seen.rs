//! A captured frame taken apart: addresses, ports, payload, and whether its checksums are right.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::checksum;
use super::packet_socket::Frame;
use crate::address::Mac;

/// What the checksums of a packet are worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksums {
    Right,
    WrongHeader,
    WrongTransport,
    /// Left for a device to finish, or not verifiable in a fragment or a cut packet.
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub outgoing: bool,
    pub vlan: Option<u16>,
    /// To which Ethernet address; nothing in a quoted packet.
    pub to_mac: Option<Mac>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub fragment: bool,
    /// Source and destination port of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// Of a TCP segment.
    pub tcp: Option<Tcp>,
    /// Type and code of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
    /// What follows the last header that was understood. For an ICMP error, the packet that it is about.
    pub payload: Vec<u8>,
    pub checksums: Checksums,
}

/// What a TCP header says of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    pub sequence: u32,
    pub acknowledges: u32,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub ack: bool,
}

impl Seen {
    /// Takes a frame apart; nothing for what is not IP.
    pub fn of(frame: &Frame) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(&frame.bytes).ok()?;
        let vlan = packet
            .vlan_ids()
            .first()
            .map(|id| id.value())
            .or(frame.vlan);
        let seen = Self::of_sliced(&packet, frame.checksum_ready)?;
        let to_mac = frame.bytes.first_chunk().copied().map(Mac);
        Some(Self {
            outgoing: frame.outgoing,
            vlan,
            to_mac,
            ..seen
        })
    }

    /// The packet inside an ICMP error, as far as it is there.
    pub fn embedded(&self) -> Option<Self> {
        self.icmp?;
        let quoted = Self::of_sliced(&LaxSlicedPacket::from_ip(&self.payload).ok()?, false)?;
        Some(Self {
            ports: quoted.ports.or_else(|| quoted.ports_of_cut_header()),
            ..quoted
        })
    }

    /// An error need quote no more than 8 bytes of a transport header (RFC 792), which is less than a parser of
    /// whole headers takes.
    fn ports_of_cut_header(&self) -> Option<(u16, u16)> {
        match (self.protocol, self.payload.as_slice()) {
            (TCP | UDP, [s0, s1, d0, d1, ..]) => Some((
                u16::from_be_bytes([*s0, *s1]),
                u16::from_be_bytes([*d0, *d1]),
            )),
            _ => None,
        }
    }

    /// Whether this port is one of its own, or of a packet that it quotes.
    pub fn has_port(&self, port: u16) -> bool {
        let has = |ports: Option<(u16, u16)>| ports.is_some_and(|(s, d)| s == port || d == port);
        has(self.ports) || self.embedded().is_some_and(|quoted| has(quoted.ports))
    }

    pub fn from(&self) -> Option<SocketAddr> {
        self.ports
            .map(|(source, _)| SocketAddr::new(self.source, source))
    }

    pub fn to(&self) -> Option<SocketAddr> {
        self.ports
            .map(|(_, destination)| SocketAddr::new(self.destination, destination))
    }

    fn of_sliced(packet: &LaxSlicedPacket, checksum_ready: bool) -> Option<Self> {
        let ip = Ip::of(packet.net.as_ref()?)?;
        let (ports, icmp, payload) = transport_of(packet);
        let checksums = match () {
            () if !ip.header_is_right => Checksums::WrongHeader,
            () if !checksum_ready || ip.fragment || ip.cut => Checksums::Unknown,
            () if !transport_is_right(packet, &ip) => Checksums::WrongTransport,
            () => Checksums::Right,
        };
        Some(Self {
            outgoing: false,
            vlan: None,
            to_mac: None,
            source: ip.source,
            destination: ip.destination,
            protocol: ip.protocol,
            ttl: ip.ttl,
            fragment: ip.fragment,
            ports,
            tcp: tcp_of(packet),
            icmp,
            payload: payload.unwrap_or(ip.payload).to_vec(),
            checksums,
        })
    }
}

const TCP: u8 = IpNumber::TCP.0;
const UDP: u8 = IpNumber::UDP.0;
const SCTP: u8 = IpNumber::SCTP.0;

struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ttl: u8,
    fragment: bool,
    cut: bool,
    header_is_right: bool,
    payload: &'a [u8],
}

impl<'a> Ip<'a> {
    fn of(net: &LaxNetSlice<'a>) -> Option<Self> {
        match net {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                Some(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: ip.payload_ip_number().0,
                    ttl: header.ttl(),
                    fragment: ip.is_payload_fragmented(),
                    cut: ip.payload().incomplete,
                    header_is_right: checksum::is_right(header.slice()),
                    payload: ip.payload().payload,
                })
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                Some(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: ip.payload().ip_number.0,
                    ttl: header.hop_limit(),
                    fragment: ip.is_payload_fragmented(),
                    cut: ip.payload().incomplete,
                    header_is_right: true,
                    payload: ip.payload().payload,
                })
            }
            LaxNetSlice::Arp(_) => None,
        }
    }
}

fn tcp_of(packet: &LaxSlicedPacket) -> Option<Tcp> {
    match packet.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => Some(Tcp {
            sequence: tcp.sequence_number(),
            acknowledges: tcp.acknowledgment_number(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            ack: tcp.ack(),
        }),
        _ => None,
    }
}

type Transport<'a> = (Option<(u16, u16)>, Option<(u8, u8)>, Option<&'a [u8]>);

fn transport_of<'a>(packet: &LaxSlicedPacket<'a>) -> Transport<'a> {
    match packet.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => (
            Some((tcp.source_port(), tcp.destination_port())),
            None,
            Some(tcp.payload()),
        ),
        Some(TransportSlice::Udp(udp)) => (
            Some((udp.source_port(), udp.destination_port())),
            None,
            Some(udp.payload()),
        ),
        Some(TransportSlice::Icmpv4(icmp)) => (
            None,
            Some((icmp.type_u8(), icmp.code_u8())),
            Some(&icmp.slice()[8..]),
        ),
        Some(TransportSlice::Icmpv6(icmp)) => (
            None,
            Some((icmp.type_u8(), icmp.code_u8())),
            Some(&icmp.slice()[8..]),
        ),
        _ => (None, None, None),
    }
}

fn transport_is_right(packet: &LaxSlicedPacket, ip: &Ip) -> bool {
    match packet.transport.as_ref() {
        // IPv4 knows a UDP datagram without a checksum.
        Some(TransportSlice::Udp(udp)) if udp.checksum() == 0 => ip.source.is_ipv4(),
        Some(TransportSlice::Icmpv4(_)) => checksum::is_right(ip.payload),
        Some(_) => checksum::transport_is_right(ip.source, ip.destination, ip.protocol, ip.payload),
        None if ip.protocol == SCTP => checksum::sctp_is_right(ip.payload),
        // Cut off or unknown: a TCP or UDP segment that cannot even be read is wrong.
        None => !matches!(IpNumber(ip.protocol), IpNumber::TCP | IpNumber::UDP),
    }
}
