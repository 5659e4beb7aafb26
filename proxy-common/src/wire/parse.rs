//! From bytes to a [`View`]: where the headers are and what the packet's tuple is.
//!
//! Nothing is judged here. What is not understood is reported as a [`Reason`] and the packet goes on as it is.

use crate::{
    abi::{SCTP, TCP, Tuple, UDP},
    addr::{Addr, Be16, Family, Ip4, Ip6, V4, V6},
    reason::PassReason,
    sums::internet::Sum,
    wire::packet::{Be16Pair, Head, Packet},
};

/// IPv6 extension headers that are stepped over before the packet is left alone.
const MAX_EXTENSIONS: usize = 4;

/// TCP flags, as in the header's 14th byte.
pub mod tcp {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// What the first chunk of an SCTP packet says of its association, as the TCP flags that say it of a connection.
///
/// INIT and SHUTDOWN COMPLETE have a packet to themselves (RFC 9260 section 6.10). An ABORT may come behind other
/// chunks; then the flow ends by its idle time.
#[inline(always)]
fn chunk_flags(kind: u8) -> u8 {
    match kind {
        // INIT, INIT ACK; ABORT and SHUTDOWN COMPLETE, behind which neither end has anything to say.
        1 => tcp::SYN,
        2 => tcp::SYN | tcp::ACK,
        6 | 14 => tcp::RST,
        _ => tcp::ACK,
    }
}

/// Which part of its datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Whole,
    /// The fragment with the transport header.
    First,
    /// A fragment without it.
    Later,
}

/// The IP header of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ip<A> {
    pub src: A,
    pub dst: A,
    pub proto: u8,
    /// Offset of what follows the IP header and its extensions, from the packet's own IP header on.
    pub l4: usize,
    /// Length of the packet from its IP header on, as the header gives it.
    pub len: u32,
    pub part: Part,
    /// A fragment's identification field, as it stands in the header; else 0. (Always initialised: see
    /// [`crate::edge::verdict::Verdict`].)
    pub datagram: u32,
    /// Hop limit.
    pub ttl: u8,
}

/// A TCP, UDP or SCTP packet, or a fragment of one.
#[derive(Clone, Copy, Debug)]
pub struct View<A> {
    pub ip: Ip<A>,
    /// Ports are 0 where the packet does not show them (a later fragment).
    pub tuple: Tuple<A>,
    /// TCP flags, for SCTP those that say the same; 0 for UDP.
    pub flags: u8,
    /// What its sender shows to know of the other end: TCP's acknowledgement number, SCTP's verification tag. Host byte order.
    pub shows: u32,
    /// What the other end can only know from this packet, and shows in its answer: the number that a SYN's sequence number asks to
    /// acknowledge, the initiate tag of an INIT. Of other TCP segments their sequence number. Host byte order.
    pub claims: u32,
}

impl<A> View<A> {
    /// Does the packet hold its transport header?
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        self.ip.part != Part::Later
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.ip.proto == TCP
    }

    #[inline(always)]
    pub fn is_sctp(&self) -> bool {
        self.ip.proto == SCTP
    }

    /// Is the packet of a protocol whose connections (SCTP: associations) begin and end by packets that say so?
    #[inline(always)]
    pub fn is_connected(&self) -> bool {
        is_connected(self.ip.proto)
    }

    /// Does this packet acknowledge something?
    #[inline(always)]
    pub fn acknowledges(&self) -> bool {
        self.flags & tcp::ACK != 0
    }

    /// Does this packet accept the connection that another one opens?
    #[inline(always)]
    pub fn accepts(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN | tcp::ACK
    }

    /// Does this packet open a connection?
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
    }

    /// Does this packet end a connection for both of its ends?
    #[inline(always)]
    pub fn resets(&self) -> bool {
        self.flags & tcp::RST != 0
    }

    /// Does this packet end a connection, be it only in its direction?
    #[inline(always)]
    pub fn ends(&self) -> bool {
        self.flags & (tcp::FIN | tcp::RST) != 0
    }
}

/// What a packet turned out to be.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<A> {
    Transport(View<A>),
    /// An ICMP error, which quotes another packet.
    IcmpError(Ip<A>),
    /// Nothing that a service has to do with.
    Other(PassReason),
}

/// Reads the IP header of a family.
pub trait ParseIp: Family {
    /// Reads the header at `offset`.
    fn ip<P: Packet>(packet: &P, offset: usize) -> Result<Ip<Self::Addr>, PassReason>;

    /// Reads the header at the start of a packet that is not fragmented and has no options; `None` for others. What is
    /// an extension is for the caller to judge.
    fn plain(head: &Head<'_>) -> Option<Ip<Self::Addr>>;

    /// Is the header at `offset`, `len` bytes long, the one that its sender made, as far as its sum tells? IPv6 leaves that to what follows.
    fn is_sound<P: Packet>(packet: &P, offset: usize, len: usize) -> bool;

    /// The same of a header at the start, without options.
    fn is_sound_plain(head: &Head<'_>) -> bool;

    /// Is this ICMP type an error about another packet?
    fn is_icmp_error(kind: u8) -> bool;

    /// Is this a header between the IP header and the transport's?
    fn is_extension(proto: u8) -> bool;
}

impl ParseIp for V4 {
    #[inline(always)]
    fn ip<P: Packet>(packet: &P, offset: usize) -> Result<Ip<Ip4>, PassReason> {
        // RFC 791: version/IHL/TOS/length, id/fragment, TTL/protocol/checksum, source, destination.
        let Some(h) = packet.load::<[u32; 5]>(offset) else {
            return Err(PassReason::BadHeader);
        };
        let b0 = h[0].to_ne_bytes();
        let header_len = ((b0[0] & 0x0f) as usize) << 2;
        if b0[0] >> 4 != 4 || header_len < 20 {
            return Err(PassReason::BadHeader);
        }
        let len = u16::from_be_bytes([b0[2], b0[3]]) as u32;
        let b1 = h[1].to_ne_bytes();
        let offset_flags = u16::from_be_bytes([b1[2], b1[3]]);
        // "More fragments", or an offset.
        let (part, datagram) = match offset_flags & 0x3fff {
            0 => (Part::Whole, 0),
            // "More fragments" at offset 0.
            0x2000 => (Part::First, h[1]),
            _ => (Part::Later, h[1]),
        };
        // Without the flags and the offset, which differ between fragments.
        let datagram = datagram & u32::from_ne_bytes([255, 255, 0, 0]);
        let b2 = h[2].to_ne_bytes();
        Ok(Ip {
            src: Ip4(h[3]),
            dst: Ip4(h[4]),
            proto: b2[1],
            l4: offset + header_len,
            len,
            part,
            datagram,
            ttl: b2[0],
        })
    }

    #[inline(always)]
    fn plain(head: &Head<'_>) -> Option<Ip<Ip4>> {
        let [b0, b1] = [head.load::<u32>(0)?, head.load::<u32>(4)?].map(u32::to_ne_bytes);
        // Version 4 and five words of header; neither "more fragments" nor an offset.
        if b0[0] != 0x45 || u16::from_be_bytes([b1[2], b1[3]]) & 0x3fff != 0 {
            return None;
        }
        let [ttl, proto] = head.load::<u16>(8)?.to_ne_bytes();
        Some(Ip {
            src: head.load(Self::SRC_OFFSET)?,
            dst: head.load(Self::DST_OFFSET)?,
            proto,
            l4: Self::HEADER_LEN,
            len: u16::from_be_bytes([b0[2], b0[3]]) as u32,
            part: Part::Whole,
            datagram: 0,
            ttl,
        })
    }

    #[inline(always)]
    fn is_sound<P: Packet>(packet: &P, offset: usize, len: usize) -> bool {
        // With options it is not looked at: they are not answered, and who they are forwarded to will look.
        if len != Self::HEADER_LEN {
            return true;
        }
        match packet.load::<[u32; 5]>(offset) {
            Some(words) => Sum::default().words(&words).is_right(),
            None => false,
        }
    }

    #[inline(always)]
    fn is_sound_plain(head: &Head<'_>) -> bool {
        match head.load::<[u32; 5]>(0) {
            Some(words) => Sum::default().words(&words).is_right(),
            None => false,
        }
    }

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        // RFC 792: destination unreachable, source quench (dead), time exceeded, parameter problem.
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_extension(_: u8) -> bool {
        false
    }
}

impl ParseIp for V6 {
    #[inline(always)]
    fn ip<P: Packet>(packet: &P, offset: usize) -> Result<Ip<Ip6>, PassReason> {
        // RFC 8200: version/class/label, payload length/next header/hop limit, source, destination.
        let Some(h) = packet.load::<[u32; 10]>(offset) else {
            return Err(PassReason::BadHeader);
        };
        if h[0].to_ne_bytes()[0] >> 4 != 6 {
            return Err(PassReason::BadHeader);
        }
        let b1 = h[1].to_ne_bytes();
        let mut ip = Ip {
            src: Ip6([h[2], h[3], h[4], h[5]]),
            dst: Ip6([h[6], h[7], h[8], h[9]]),
            proto: b1[2],
            l4: offset + 40,
            len: 40 + u16::from_be_bytes([b1[0], b1[1]]) as u32,
            part: Part::Whole,
            datagram: 0,
            ttl: b1[3],
        };
        if ip.proto == TCP || ip.proto == UDP {
            return Ok(ip);
        }
        let mut n = 0;
        while n < MAX_EXTENSIONS {
            match ip.proto {
                // Hop-by-hop, routing, destination options: next header, length in 8-byte units less one.
                0 | 43 | 60 => {
                    let Some(x) = packet.load::<u16>(ip.l4) else {
                        return Err(PassReason::BadHeader);
                    };
                    let [next, units] = x.to_ne_bytes();
                    ip.proto = next;
                    ip.l4 += (units as usize + 1) << 3;
                }
                // Fragment: next header, reserved, offset and flags, identification.
                44 => {
                    let Some(x) = packet.load::<[u32; 2]>(ip.l4) else {
                        return Err(PassReason::BadHeader);
                    };
                    let b = x[0].to_ne_bytes();
                    let offset = u16::from_be_bytes([b[2], b[3]]);
                    // RFC 6946: an atomic fragment (offset 0, no more) is a whole packet.
                    if offset & 0xfff9 != 0 {
                        ip.part = if offset & 0xfff8 == 0 {
                            Part::First
                        } else {
                            Part::Later
                        };
                        ip.datagram = x[1];
                    }
                    ip.proto = b[0];
                    ip.l4 += 8;
                    if ip.part == Part::Later {
                        return Ok(ip);
                    }
                }
                _ => return Ok(ip),
            }
            n += 1;
        }
        if Self::is_extension(ip.proto) {
            return Err(PassReason::Extension);
        }
        Ok(ip)
    }

    #[inline(always)]
    fn plain(head: &Head<'_>) -> Option<Ip<Ip6>> {
        if head.load::<u16>(0)?.to_ne_bytes()[0] >> 4 != 6 {
            return None;
        }
        let [l0, l1, proto, ttl] = head.load::<u32>(4)?.to_ne_bytes();
        Some(Ip {
            src: head.load(Self::SRC_OFFSET)?,
            dst: head.load(Self::DST_OFFSET)?,
            proto,
            l4: Self::HEADER_LEN,
            len: Self::HEADER_LEN as u32 + u16::from_be_bytes([l0, l1]) as u32,
            part: Part::Whole,
            datagram: 0,
            ttl,
        })
    }

    #[inline(always)]
    fn is_sound<P: Packet>(_: &P, _: usize, _: usize) -> bool {
        true
    }

    #[inline(always)]
    fn is_sound_plain(_: &Head<'_>) -> bool {
        true
    }

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        // RFC 4443: error messages have types below 128; 1..4 are defined.
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_extension(proto: u8) -> bool {
        // Hop-by-hop, routing, fragment, destination options.
        matches!(proto, 0 | 43 | 44 | 60)
    }
}

/// Reads a packet of family `F`.
#[inline(always)]
pub fn parse<F: ParseIp, P: Packet>(packet: &P) -> Parsed<F::Addr> {
    let ip = match F::ip(packet, 0) {
        Ok(ip) => ip,
        Err(reason) => return Parsed::Other(reason),
    };
    let header = ip.l4 as u32;
    // Several segments in one buffer have lengths of their own, and a header's may be 0 (kernel `iph_set_totlen`, `ipv6_set_payload_len`).
    let is_one = packet.gso_size() == 0;
    if !F::is_sound(packet, 0, header as usize)
        || (is_one && (ip.len < header || !packet.holds(ip.len)))
    {
        return Parsed::Other(PassReason::BadHeader);
    }
    if ip.proto == F::ICMP_PROTO {
        // A fragment of an ICMP message has nothing to translate that could be checked.
        return match packet.load::<u16>(ip.l4).map(u16::to_ne_bytes) {
            Some([kind, _]) if F::is_icmp_error(kind) && ip.part == Part::Whole => {
                Parsed::IcmpError(ip)
            }
            _ => Parsed::Other(PassReason::NotService),
        };
    }
    if !is_transport(ip.proto) {
        return Parsed::Other(PassReason::NotService);
    }
    let mut tuple = Tuple {
        src: ip.src,
        dst: ip.dst,
        sport: Be16(0),
        dport: Be16(0),
    };
    let (mut flags, mut shows, mut claims) = (0, 0, 0);
    if ip.part != Part::Later {
        let Some(ports) = packet.load::<Be16Pair>(ip.l4) else {
            return Parsed::Other(PassReason::BadHeader);
        };
        tuple.sport = ports.0;
        tuple.dport = ports.1;
        // A header that is cut off before its checksum could not be rewritten.
        if packet.load::<u16>(ip.l4 + csum_offset(ip.proto)).is_none() {
            return Parsed::Other(PassReason::BadHeader);
        }
        // All of a UDP header; a datagram may end behind it.
        let Some(first) = packet.load::<u32>(ip.l4 + 4) else {
            return Parsed::Other(PassReason::BadHeader);
        };
        let second = packet.load::<u32>(ip.l4 + 8);
        let word = packet.load::<u16>(ip.l4 + 12).map(u16::to_ne_bytes);
        let length = match (ip.proto, word) {
            (UDP, _) => {
                let [a, b, ..] = first.to_ne_bytes();
                u16::from_be_bytes([a, b]) as u32
            }
            // Header length and flags.
            (TCP, Some([words, bits])) => {
                flags = bits;
                claims = u32::from_be(first);
                shows = u32::from_be(second.unwrap_or_default());
                if bits & tcp::SYN != 0 {
                    claims = claims.wrapping_add(1);
                }
                (words >> 4) as u32 * 4
            }
            // Behind the common header: the first chunk's type and flags, and the tag behind its length.
            (SCTP, Some([kind, _])) => {
                flags = chunk_flags(kind);
                shows = u32::from_be(first);
                if flags & tcp::SYN != 0 {
                    claims = match packet.load::<u32>(ip.l4 + 16) {
                        Some(tag) => u32::from_be(tag),
                        None => return Parsed::Other(PassReason::BadHeader),
                    };
                }
                SCTP_HEADER
            }
            // Several packets in one buffer show no chunk (kernel `GSO_BY_FRAGS`). They are of data.
            (SCTP, None) if second.is_some() => {
                flags = tcp::ACK;
                SCTP_HEADER
            }
            _ => return Parsed::Other(PassReason::BadHeader),
        };
        // A first fragment holds a part of what its UDP header tells of.
        let is_told = is_one && (ip.proto != UDP || ip.part == Part::Whole);
        if length < least(ip.proto) || (is_told && header + length > ip.len) {
            return Parsed::Other(PassReason::BadHeader);
        }
    }
    Parsed::Transport(View {
        ip,
        tuple,
        flags,
        shows,
        claims,
    })
}

/// Bytes of SCTP's common header (RFC 9260 section 3.1).
const SCTP_HEADER: u32 = 12;

/// The least that a transport header tells of itself: TCP's length, UDP's with its payload, in bytes.
#[inline(always)]
const fn least(proto: u8) -> u32 {
    match proto {
        TCP => 20,
        SCTP => SCTP_HEADER,
        _ => 8,
    }
}

/// Is this a protocol that services have?
#[inline(always)]
const fn is_transport(proto: u8) -> bool {
    proto == TCP || proto == UDP || proto == SCTP
}

/// See [`View::is_connected`].
#[inline(always)]
pub const fn is_connected(proto: u8) -> bool {
    proto != UDP
}

/// Offset of the checksum in a transport header: two bytes of it, in SCTP four.
#[inline(always)]
pub const fn csum_offset(proto: u8) -> usize {
    match proto {
        TCP => 16,
        SCTP => 8,
        _ => 6,
    }
}

/// The tuple that a quoted packet's answer would have, and where the quoted transport header is.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<A> {
    pub ip: Ip<A>,
    /// As the quoted packet shows it.
    pub tuple: Tuple<A>,
}

/// Reads the packet that an ICMP error quotes. `None`: no service has its protocol, or it is cut too short.
#[inline(always)]
pub fn quoted<F: ParseIp, P: Packet>(packet: &P, outer: &Ip<F::Addr>) -> Option<Quoted<F::Addr>> {
    let Ok(ip) = F::ip(packet, outer.l4 + 8) else {
        return None;
    };
    if !is_transport(ip.proto) {
        return None;
    }
    if ip.part == Part::Later {
        return None;
    }
    // What lies behind the error itself is padding, which its sum does not cover.
    if (ip.l4 + size_of::<Be16Pair>()) as u32 > outer.len {
        return None;
    }
    let ports = packet.load::<Be16Pair>(ip.l4)?;
    Some(Quoted {
        ip,
        tuple: Tuple {
            src: ip.src,
            dst: ip.dst,
            sport: ports.0,
            dport: ports.1,
        },
    })
}

const _: () = assert!(Ip4::WORDS == 1 && Ip6::WORDS == 4);
