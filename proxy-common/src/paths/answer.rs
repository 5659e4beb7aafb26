//! Answers that the node gives itself: a TCP reset, an ICMP unreachable, "too big".
//!
//! The packet becomes its own answer and goes back where it came from. A reset keeps the headers' places; an
//! ICMP error keeps the packet in place too, as the quotation, and grows new headers before it.

use crate::{
    abi::IfIndex,
    addr::{Addr, Family, V4, V6},
    edge::{Client, Edge, verdict::Verdict},
    sums::{crc32c, internet::Sum},
    wire::{
        packet::Packet,
        parse::{View, csum_offset, tcp},
    },
};

/// Hop limit of answers (the kernel's default for its own packets).
const HOP_LIMIT: u8 = 64;

/// What an ICMP error says: type, code and the second word of its header (network byte order).
#[derive(Clone, Copy, Debug)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    pub rest: u32,
}

/// Writes IP headers and knows the ICMP of a family.
pub trait AnswerIp: Family {
    /// "Port unreachable" (RFC 792, RFC 4443).
    const PORT_UNREACHABLE: IcmpError;

    /// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443), with the MTU in bytes.
    fn too_big(mtu: u16) -> IcmpError;

    /// Writes a whole header without options at the start.
    fn write_header<P: Packet>(
        packet: &mut P,
        src: &Self::Addr,
        dst: &Self::Addr,
        proto: u8,
        payload: u16,
    ) -> Option<()>;

    /// Sums the header at the start as it stands.
    fn sum_header<P: Packet>(packet: &P, sum: Sum) -> Option<Sum>;

    /// Adds what an ICMP checksum covers before the message: nothing in IPv4.
    fn sum_icmp_pseudo(sum: Sum, src: &Self::Addr, dst: &Self::Addr, len: u16) -> Sum;
}

impl AnswerIp for V4 {
    const PORT_UNREACHABLE: IcmpError = IcmpError {
        kind: 3,
        code: 3,
        rest: 0,
    };

    #[inline(always)]
    fn too_big(mtu: u16) -> IcmpError {
        IcmpError {
            kind: 3,
            code: 4,
            rest: (mtu as u32).to_be(),
        }
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        src: &Self::Addr,
        dst: &Self::Addr,
        proto: u8,
        payload: u16,
    ) -> Option<()> {
        let len = (payload + 20).to_be_bytes();
        let mut h = [
            u32::from_ne_bytes([0x45, 0, len[0], len[1]]),
            // Identification 0, "don't fragment".
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([HOP_LIMIT, proto, 0, 0]),
            src.word(0),
            dst.word(0),
        ];
        let sum = Sum::default().words(&h).finish().to_ne_bytes();
        h[2] = u32::from_ne_bytes([HOP_LIMIT, proto, sum[0], sum[1]]);
        packet.store(0, h)
    }

    #[inline(always)]
    fn sum_header<P: Packet>(packet: &P, sum: Sum) -> Option<Sum> {
        Some(sum.words(&packet.load::<[u32; 5]>(0)?))
    }

    #[inline(always)]
    fn sum_icmp_pseudo(sum: Sum, _: &Self::Addr, _: &Self::Addr, _: u16) -> Sum {
        sum
    }
}

impl AnswerIp for V6 {
    const PORT_UNREACHABLE: IcmpError = IcmpError {
        kind: 1,
        code: 4,
        rest: 0,
    };

    #[inline(always)]
    fn too_big(mtu: u16) -> IcmpError {
        IcmpError {
            kind: 2,
            code: 0,
            rest: (mtu as u32).to_be(),
        }
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        src: &Self::Addr,
        dst: &Self::Addr,
        proto: u8,
        payload: u16,
    ) -> Option<()> {
        let len = payload.to_be_bytes();
        packet.store(
            0,
            [
                u32::from_ne_bytes([0x60, 0, 0, 0]),
                u32::from_ne_bytes([len[0], len[1], proto, HOP_LIMIT]),
                src.word(0),
                src.word(1),
                src.word(2),
                src.word(3),
                dst.word(0),
                dst.word(1),
                dst.word(2),
                dst.word(3),
            ],
        )
    }

    #[inline(always)]
    fn sum_header<P: Packet>(packet: &P, sum: Sum) -> Option<Sum> {
        Some(sum.words(&packet.load::<[u32; 10]>(0)?))
    }

    #[inline(always)]
    fn sum_icmp_pseudo(sum: Sum, src: &Self::Addr, dst: &Self::Addr, len: u16) -> Sum {
        pseudo(sum, src, dst, Self::ICMP_PROTO, len)
    }
}

/// Adds a pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline(always)]
fn pseudo<A: Addr>(sum: Sum, src: &A, dst: &A, proto: u8, len: u16) -> Sum {
    sum.addr(src)
        .addr(dst)
        .half((proto as u16).to_be())
        .half(len.to_be())
}

/// Where an answer goes: back out by the device, or, to a client on this node, back in.
#[inline(always)]
fn back(edge: Edge, ifindex: IfIndex) -> Verdict {
    match edge.client() {
        Some(Client::Node) => Verdict::receive(ifindex),
        _ => Verdict::TRANSMIT,
    }
}

/// Addresses the frame, if it is one, to where it came from.
#[inline(always)]
fn turn_round<P: Packet>(packet: &mut P) -> Option<()> {
    match packet.macs() {
        Some(macs) => packet.set_macs(macs.swapped()),
        None => Some(()),
    }
}

/// Are there neither options nor extensions, so that the headers' places are known?
#[inline(always)]
fn is_plain<F: Family>(view: &View<F::Addr>) -> bool {
    view.ip.l4 == F::HEADER_LEN && view.has_ports()
}

/// Turns a segment into the reset that answers it where there is no connection (RFC 9293 section 3.10.7.1).
#[inline(always)]
pub fn reset<F: AnswerIp, P: Packet>(
    edge: Edge,
    packet: &mut P,
    view: &View<F::Addr>,
    ifindex: IfIndex,
) -> Option<Verdict> {
    if !is_plain::<F>(view) {
        return None;
    }
    let l4 = F::HEADER_LEN;
    let (client, server) = (&view.tuple.src, &view.tuple.dst);
    let numbers = reset_numbers(view);
    let partial = packet.checksum_is_partial(l4 + 16);
    packet.trim(l4 as u32 + 20)?;
    turn_round(packet)?;
    F::write_header(packet, server, client, crate::abi::TCP, 20)?;
    let [d0, d1] = view.tuple.dport.0.to_ne_bytes();
    let [s0, s1] = view.tuple.sport.0.to_ne_bytes();
    let h = [
        u32::from_ne_bytes([d0, d1, s0, s1]),
        numbers.seq.to_be(),
        numbers.ack.to_be(),
        // Five words of header; window 0.
        u32::from_ne_bytes([5 << 4, numbers.flags, 0, 0]),
        0,
    ];
    let sum = pseudo(Sum::default(), server, client, crate::abi::TCP, 20);
    let field = if partial {
        sum.folded()
    } else {
        sum.words(&h).finish()
    };
    packet.store(l4, h)?;
    packet.store(l4 + 16, field)?;
    Some(back(edge, ifindex))
}

/// What stands in a reset.
struct ResetNumbers {
    seq: u32,
    ack: u32,
    flags: u8,
}

/// A segment that acknowledges something is answered with the number that it acknowledges; another one is acknowledged. (Of those, only a SYN
/// comes here whose length counts: a segment without ACK is in no other state.)
#[inline(always)]
fn reset_numbers<A>(view: &View<A>) -> ResetNumbers {
    if view.acknowledges() {
        ResetNumbers {
            seq: view.shows,
            ack: 0,
            flags: tcp::RST,
        }
    } else {
        ResetNumbers {
            seq: 0,
            ack: view.claims,
            flags: tcp::RST | tcp::ACK,
        }
    }
}

/// Turns a packet into an ICMP error about itself, from the address that it was sent to.
///
/// Quoted are the IP header and the first 8 bytes of UDP, or the whole 20 of a TCP header. SCTP's 20 reach to the
/// initiate tag of an INIT, by which its sender knows its own (RFC 9260 section 10).
#[inline(always)]
pub fn icmp_error<F: AnswerIp, P: Packet>(
    edge: Edge,
    packet: &mut P,
    view: &View<F::Addr>,
    error: IcmpError,
    ifindex: IfIndex,
) -> Option<Verdict> {
    if !is_plain::<F>(view) {
        return None;
    }
    let l4 = F::HEADER_LEN;
    let (client, server) = (&view.tuple.src, &view.tuple.dst);
    let csum_at = l4 + csum_offset(view.ip.proto);
    let partial = packet.checksum_is_partial(csum_at);
    let quoted_l4: u16 = if view.is_connected() { 20 } else { 8 };
    packet.trim(l4 as u32 + quoted_l4 as u32)?;

    // With a partial checksum the device will still fill in the quoted packet's field. What the quoted
    // segment sums to after that is known now: the complement of what the field holds; SCTP's with its CRC.
    let sum = if partial && !view.is_sctp() {
        Sum::default().half(!packet.load::<u16>(csum_at)?)
    } else if view.is_connected() {
        let mut words = packet.load::<[u32; 5]>(l4)?;
        if partial {
            words[2] = crc32c::field_of(&words);
        }
        Sum::default().words(&words)
    } else {
        Sum::default().words(&packet.load::<[u32; 2]>(l4)?)
    };
    let sum = F::sum_header(packet, sum)?;

    packet.grow_front(F::HEADER_LEN as u32 + 8)?;
    turn_round(packet)?;
    let len = 8 + F::HEADER_LEN as u16 + quoted_l4;
    F::write_header(packet, server, client, F::ICMP_PROTO, len)?;
    let head = u32::from_ne_bytes([error.kind, error.code, 0, 0]);
    let sum = F::sum_icmp_pseudo(sum.words(&[head, error.rest]), server, client, len)
        .finish()
        .to_ne_bytes();
    let head = u32::from_ne_bytes([error.kind, error.code, sum[0], sum[1]]);
    packet.store(l4, [head, error.rest])?;
    Some(back(edge, ifindex))
}
