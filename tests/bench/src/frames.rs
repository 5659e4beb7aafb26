//! Template frames, and where a flow's number stands in them.

use etherparse::PacketBuilder;

/// The driver's templates have this length.
pub const LEN: usize = 80;

/// Half-word places of what varies, for the driver.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub addr_half: u32,
    pub port_half: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Varies {
    /// The source's address and port.
    Source,
    /// The destination's.
    Destination,
    /// One client's packets to services: the destination's address, and the source's port.
    Service,
    /// The answers: the source's address, and the destination's port.
    Backend,
}

/// What a frame carries, by its transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    Datagram,
    Tcp { syn: bool, ack: bool, fin: bool },
}

impl Segment {
    pub const SYN: Self = Self::tcp(true, false, false);
    pub const SYN_ACK: Self = Self::tcp(true, true, false);
    /// In mid-flow, and what confirms a connection.
    pub const ACK: Self = Self::tcp(false, true, false);
    pub const FIN: Self = Self::tcp(false, true, true);

    const fn tcp(syn: bool, ack: bool, fin: bool) -> Self {
        Self::Tcp { syn, ack, fin }
    }
}

pub fn places(is_v6: bool, varies: Varies) -> Places {
    let (source, destination) = if is_v6 {
        ([36, 54], [52, 56])
    } else {
        ([28, 34], [32, 36])
    };
    let (addr, port) = match varies {
        Varies::Source => (source[0], source[1]),
        Varies::Destination => (destination[0], destination[1]),
        Varies::Service => (destination[0], source[1]),
        Varies::Backend => (source[0], destination[1]),
    };
    Places {
        addr_half: addr / 2,
        port_half: port / 2,
    }
}

/// A frame between two addresses (as bytes, 4 or 16) and ports. Numbers of TCP are small: each acknowledges what the other end
/// has sent, a SYN included.
pub fn build(src: &[u8], dst: &[u8], sport: u16, dport: u16, segment: Segment) -> [u8; LEN] {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (<[u8; 4]>::try_from(src), <[u8; 4]>::try_from(dst)) {
        (Ok(src), Ok(dst)) => link.ipv4(src, dst, 64),
        _ => link.ipv6(
            src.try_into().expect("an address has 4 or 16 bytes"),
            dst.try_into().expect("an address has 4 or 16 bytes"),
            64,
        ),
    };
    let ip_header = if src.len() == 4 { 20 } else { 40 };
    let payload = [0; LEN];
    let mut frame = Vec::with_capacity(LEN);
    let written = match segment {
        Segment::Datagram => ip
            .udp(sport, dport)
            .write(&mut frame, &payload[14 + ip_header + 8..]),
        Segment::Tcp { syn, ack, fin } => {
            let mut tcp = ip.tcp(sport, dport, 1, 1000);
            if syn {
                tcp = tcp.syn();
            }
            if ack {
                tcp = tcp.ack(1);
            }
            if fin {
                tcp = tcp.fin();
            }
            tcp.write(&mut frame, &payload[14 + ip_header + 20..])
        }
    };
    written.expect("a frame of 80 bytes can be built");
    frame.try_into().expect("the payload fills the frame")
}
