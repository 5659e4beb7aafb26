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
    Source,
    Destination,
}

pub fn places(is_v6: bool, varies: Varies) -> Places {
    let (addr, port) = match (is_v6, varies) {
        (false, Varies::Source) => (28, 34),
        (false, Varies::Destination) => (32, 36),
        (true, Varies::Source) => (36, 54),
        (true, Varies::Destination) => (52, 56),
    };
    Places {
        addr_half: addr / 2,
        port_half: port / 2,
    }
}

/// A frame between two addresses (as bytes, 4 or 16) and ports; `syn` for TCP, else a segment in mid-flow.
pub fn build(src: &[u8], dst: &[u8], sport: u16, dport: u16, tcp: Option<bool>) -> [u8; LEN] {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (<[u8; 4]>::try_from(src), <[u8; 4]>::try_from(dst)) {
        (Ok(src), Ok(dst)) => link.ipv4(src, dst, 64),
        _ => link.ipv6(
            src.try_into().expect("an address has 4 or 16 bytes"),
            dst.try_into().expect("an address has 4 or 16 bytes"),
            64,
        ),
    };
    let headers = 14 + if src.len() == 4 { 20 } else { 40 } + if tcp.is_some() { 20 } else { 8 };
    let payload = [0; LEN];
    let mut frame = Vec::with_capacity(LEN);
    let written = match tcp {
        Some(true) => ip
            .tcp(sport, dport, 1, 1000)
            .syn()
            .write(&mut frame, &payload[headers..]),
        Some(false) => ip
            .tcp(sport, dport, 1, 1000)
            .ack(1)
            .write(&mut frame, &payload[headers..]),
        None => ip.udp(sport, dport).write(&mut frame, &payload[headers..]),
    };
    written.expect("a frame of 80 bytes can be built");
    frame.try_into().expect("the payload fills the frame")
}
