//! The packet of a question: made, and read as it comes out.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use proxy_common::{
    sums::{crc32c, internet::Sum},
    wire::parse::tcp,
};

use crate::model::Protocol;

const ETHERNET: usize = 14;
const TTL: u8 = 64;

/// What a TCP packet is of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// The one that opens it.
    Syn,
    /// One in its middle.
    Ack,
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crafted {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub segment: Segment,
    /// To whom the frame goes.
    pub mac: [u8; 6],
    /// Length in layer 3; `None` for headers alone.
    pub size: Option<u16>,
}

/// A frame's sender, whoever it may be: locally administered, and nobody's.
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

impl Crafted {
    /// From the Ethernet header on, with right checksums.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut transport = self.transport();
        let is_v6 = self.source.is_ipv6();
        let header = if is_v6 { 40 } else { 20 };
        if let Some(size) = self.size {
            let least = header + transport.len();
            ensure!(
                self.protocol != Protocol::Sctp,
                "--size is for TCP and UDP: an INIT has its size"
            );
            ensure!(
                usize::from(size) >= least,
                "--size {size} is less than the headers take: {least}"
            );
            transport.resize(usize::from(size) - header, 0);
        }
        let len = transport.len() as u16;
        if self.protocol == Protocol::Udp {
            transport[4..6].copy_from_slice(&len.to_be_bytes());
        }
        self.fill_in_sum(&mut transport);
        let mut packet = [self.mac, SENDER].concat();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet.extend([8, 0]);
                let mut ip = vec![0x45, 0];
                ip.extend((20 + len).to_be_bytes());
                ip.extend([0, 0, 0x40, 0, TTL, self.protocol.number(), 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                let sum = sum(&[&ip]).to_ne_bytes();
                ip[10..12].copy_from_slice(&sum);
                packet.extend(ip);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                packet.extend(len.to_be_bytes());
                packet.extend([self.protocol.number(), TTL]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            (source, destination) => {
                anyhow::bail!("{source} and {destination} are not of one family")
            }
        }
        packet.extend(transport);
        Ok(packet)
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.source.port(), self.destination.port()];
        let mut bytes = ports.map(u16::to_be_bytes).concat();
        match self.protocol {
            Protocol::Tcp => {
                let (acknowledged, flags) = match self.segment {
                    Segment::Syn => (0_u32, tcp::SYN),
                    Segment::Ack => (1, tcp::ACK),
                };
                bytes.extend(1_u32.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Protocol::Udp => bytes.extend([0; 4]),
            Protocol::Sctp => {
                // No tag yet and no sum; INIT of 20 bytes: a tag, a window, a stream each way, the first number.
                bytes.extend([0; 8]);
                bytes.extend([1, 0, 0, 20]);
                bytes.extend(1_u32.to_be_bytes());
                bytes.extend(0xffff_u32.to_be_bytes());
                bytes.extend([0, 1, 0, 1]);
                bytes.extend(1_u32.to_be_bytes());
            }
        }
        bytes
    }

    fn fill_in_sum(&self, transport: &mut [u8]) {
        let at = match self.protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
            Protocol::Sctp => {
                let words: Vec<u32> = transport
                    .chunks(4)
                    .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
                    .collect();
                transport[8..12].copy_from_slice(&crc32c::field_of(&words).to_ne_bytes());
                return;
            }
        };
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let [source, destination] = [self.source, self.destination].map(|end| address(end.ip()));
        let len = (transport.len() as u32).to_be_bytes();
        let pseudo = [0, 0, 0, self.protocol.number()];
        let sum = match sum(&[&source, &destination, &len, &pseudo, transport]) {
            0 => 0xffff,
            sum => sum,
        };
        transport[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// The internet checksum, as it lies in memory. Parts but the last have an even length.
fn sum(parts: &[&[u8]]) -> u16 {
    let halves = parts.iter().flat_map(|part| part.chunks(2));
    halves
        .fold(Sum::default(), |sum, half| {
            sum.half(u16::from_ne_bytes([
                half[0],
                half.get(1).copied().unwrap_or(0),
            ]))
        })
        .finish()
}

/// What a packet shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    Transport {
        source: SocketAddr,
        destination: SocketAddr,
        /// Of TCP.
        is_reset: bool,
    },
    Icmp {
        source: IpAddr,
        destination: IpAddr,
        kind: u8,
        code: u8,
    },
}

impl Shown {
    /// Reads what left a run. It is plain: the question's packet or an answer to it.
    pub fn of(packet: &[u8]) -> Result<Self> {
        Self::read(packet).context("the packet that came out is cut off")
    }

    fn read(packet: &[u8]) -> Option<Self> {
        let is_v6 = packet.get(12..ETHERNET)? == [0x86, 0xdd];
        let ip = packet.get(ETHERNET..)?;
        let (source, destination, number, transport): (IpAddr, IpAddr, u8, &[u8]) = if is_v6 {
            let address = |at: usize| -> Option<[u8; 16]> { ip.get(at..at + 16)?.try_into().ok() };
            (
                address(8)?.into(),
                address(24)?.into(),
                *ip.get(6)?,
                ip.get(40..)?,
            )
        } else {
            let address = |at: usize| -> Option<[u8; 4]> { ip.get(at..at + 4)?.try_into().ok() };
            let len = usize::from(ip.first()? & 15) * 4;
            (
                address(12)?.into(),
                address(16)?.into(),
                *ip.get(9)?,
                ip.get(len..)?,
            )
        };
        if number == 1 || number == 58 {
            return Some(Self::Icmp {
                source,
                destination,
                kind: *transport.first()?,
                code: *transport.get(1)?,
            });
        }
        let port = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(
                transport.get(at..at + 2)?.try_into().ok()?,
            ))
        };
        Some(Self::Transport {
            source: SocketAddr::new(source, port(0)?),
            destination: SocketAddr::new(destination, port(2)?),
            is_reset: number == 6 && transport.get(13)? & tcp::RST != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crafted(protocol: Protocol, v6: bool, size: Option<u16>) -> Crafted {
        let [source, destination] = match v6 {
            false => ["192.0.2.1:40000", "10.96.0.1:80"],
            true => ["[2001:db8::1]:40000", "[fd00::1]:80"],
        };
        Crafted {
            protocol,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            segment: Segment::Syn,
            mac: [2, 0, 0, 0, 0, 1],
            size,
        }
    }

    #[test]
    fn a_packet_has_the_sums_that_a_receiver_asks_for() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for v6 in [false, true] {
                for size in [None, Some(101), Some(1500)] {
                    let packet = crafted(protocol, v6, size).bytes().unwrap();
                    let ip = &packet[ETHERNET..];
                    let header = if v6 { 40 } else { 20 };
                    let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
                    let segment = &ip[header..];
                    let len = (segment.len() as u32).to_be_bytes();
                    let pseudo = [0, 0, 0, protocol.number()];
                    assert_eq!(sum(&[addresses, &len, &pseudo, segment]), 0);
                    assert!(v6 || sum(&[&ip[..20]]) == 0);
                    assert!(size.is_none_or(|size| usize::from(size) == ip.len()));
                }
            }
        }
        let packet = crafted(Protocol::Sctp, false, None).bytes().unwrap();
        let mut segment = packet[ETHERNET + 20..].to_vec();
        let field = u32::from_le_bytes(segment[8..12].try_into().unwrap());
        segment[8..12].fill(0);
        let words: Vec<u32> = segment
            .chunks(4)
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(crc32c::field_of(&words).to_ne_bytes(), field.to_le_bytes());
    }

    #[test]
    fn a_packet_is_read_as_it_was_made() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for v6 in [false, true] {
                let made = crafted(protocol, v6, None);
                let shown = Shown::of(&made.bytes().unwrap()).unwrap();
                assert_eq!(
                    shown,
                    Shown::Transport {
                        source: made.source,
                        destination: made.destination,
                        is_reset: false,
                    }
                );
            }
        }
        Shown::of(&[0; 20]).unwrap_err();
    }

    #[test]
    fn what_no_packet_can_be_is_refused() {
        let mut mixed = crafted(Protocol::Tcp, false, None);
        mixed.destination = "[fd00::1]:80".parse().unwrap();
        let error = mixed.bytes().unwrap_err().to_string();
        assert!(error.contains("not of one family"), "{error}");
        let error = crafted(Protocol::Udp, true, Some(47)).bytes().unwrap_err();
        assert!(
            error.to_string().contains("the headers take: 48"),
            "{error}"
        );
        crafted(Protocol::Sctp, false, Some(100))
            .bytes()
            .unwrap_err();
    }
}
