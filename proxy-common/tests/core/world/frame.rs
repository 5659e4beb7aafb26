//! Frames, written and read byte by byte without the core's help.

use super::{
    check::{sctp_field, sum},
    net::Net,
    packet::{Buffer, Partial},
};
use proxy_common::{
    abi::{SCTP, TCP, Tuple, UDP},
    addr::Be16,
    wire::parse::tcp,
};

/// The number that both ends begin with, and both tags of an association.
pub const ISN: u32 = 0x1020_3040;

/// A TCP, UDP or SCTP packet to be written.
#[derive(Clone, Debug)]
pub struct Frame<F: Net> {
    pub tuple: Tuple<F::Addr>,
    pub proto: u8,
    pub flags: u8,
    pub seq: u32,
    /// TCP's acknowledgement number, SCTP's verification tag.
    pub ack: u32,
    pub ttl: u8,
    pub payload: Vec<u8>,
}

impl<F: Net> Frame<F> {
    /// The first packet of a connection.
    pub fn new(proto: u8, src: (F::Addr, u16), dst: (F::Addr, u16)) -> Self {
        Self {
            tuple: Tuple {
                src: src.0,
                dst: dst.0,
                sport: Be16::new(src.1),
                dport: Be16::new(dst.1),
            },
            proto,
            flags: if proto == UDP { 0 } else { tcp::SYN },
            seq: ISN,
            ack: if proto == TCP { ISN + 1 } else { ISN },
            ttl: 64,
            payload: b"hello".to_vec(),
        }
    }

    /// The first answer to a packet that shows `tuple`.
    pub fn answer(proto: u8, tuple: &Tuple<F::Addr>) -> Self {
        let t = tuple.inverse();
        Self::new(proto, (t.src, t.sport.get()), (t.dst, t.dport.get())).flags(tcp::SYN | tcp::ACK)
    }

    /// TCP flags, which choose the chunk of SCTP; UDP has none.
    pub fn flags(mut self, flags: u8) -> Self {
        if self.proto != UDP {
            self.flags = flags;
        }
        if self.proto == TCP && flags & tcp::SYN == 0 {
            self.seq = ISN + 1;
        }
        self
    }

    /// Other numbers than those of the connection: nobody told the sender.
    pub fn blind(mut self) -> Self {
        self.seq ^= 0x5555_0000;
        self.ack ^= 0x5555_0000;
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn payload(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|i| i as u8).collect();
        self
    }

    /// An SCTP packet of one chunk (RFC 9260 section 3.1), with the CRC32c or without.
    fn sctp(&self, partial: bool) -> Vec<u8> {
        let mut s = Vec::new();
        s.extend(self.tuple.sport.get().to_be_bytes());
        s.extend(self.tuple.dport.get().to_be_bytes());
        const ACKED: u8 = tcp::SYN | tcp::ACK;
        let chunk = match self.flags {
            tcp::SYN => 1,
            ACKED => 2,
            tcp::RST => 6,
            flags if flags & tcp::FIN != 0 => 14,
            _ => 0,
        };
        let tag = if chunk == 1 { 0 } else { self.ack };
        s.extend(tag.to_be_bytes());
        s.extend([0; 4]);
        s.extend([chunk, 3]);
        s.extend((8 + self.payload.len() as u16).to_be_bytes());
        s.extend(self.seq.to_be_bytes());
        s.extend(&self.payload);
        s.resize(s.len().next_multiple_of(4), 0);
        if !partial {
            let field = sctp_field(&s);
            s[8..12].copy_from_slice(&field);
        }
        s
    }

    /// The transport header and payload, with the whole checksum or the pseudo header's sum alone.
    fn segment(&self, partial: bool) -> Vec<u8> {
        if self.proto == SCTP {
            return self.sctp(partial);
        }
        let mut s = Vec::new();
        s.extend(self.tuple.sport.get().to_be_bytes());
        s.extend(self.tuple.dport.get().to_be_bytes());
        let field = if self.proto == TCP {
            s.extend(self.seq.to_be_bytes());
            s.extend(self.ack.to_be_bytes());
            s.extend([5 << 4, self.flags, 1, 0, 0, 0, 0, 0]);
            16
        } else {
            s.extend((8 + self.payload.len() as u16).to_be_bytes());
            s.extend([0, 0]);
            6
        };
        s.extend(&self.payload);
        let mut pseudo = [F::bytes(&self.tuple.src), F::bytes(&self.tuple.dst)].concat();
        pseudo.extend((s.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.proto]);
        let check = if partial {
            sum(&pseudo)
        } else {
            pseudo.extend(&s);
            match !sum(&pseudo) {
                0 if self.proto != TCP => 0xffff,
                check => check,
            }
        };
        s[field..field + 2].copy_from_slice(&check.to_be_bytes());
        s
    }

    pub fn build(&self) -> Buffer {
        Buffer::new(frame::<F>(
            &self.tuple.src,
            &self.tuple.dst,
            self.proto,
            self.ttl,
            &self.segment(false),
        ))
    }

    /// As a socket of this node sends it: the device is to fill in the checksum.
    pub fn build_partial(&self) -> Buffer {
        let start = 14 + F::HEADER_LEN;
        let field = start
            + match self.proto {
                TCP => 16,
                SCTP => 8,
                _ => 6,
            };
        let is_crc = self.proto == SCTP;
        Buffer {
            partial: Some(Partial {
                start,
                field,
                is_crc,
            }),
            ..Buffer::new(frame::<F>(
                &self.tuple.src,
                &self.tuple.dst,
                self.proto,
                self.ttl,
                &self.segment(true),
            ))
        }
    }
}

/// An Ethernet frame with an IP header and what follows it.
pub fn frame<F: Net>(src: &F::Addr, dst: &F::Addr, proto: u8, ttl: u8, body: &[u8]) -> Vec<u8> {
    let mut b = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    b.extend(F::ETHERTYPE.to_be_bytes());
    let len = body.len() as u16;
    if F::IS_V6 {
        b.extend([0x60, 0, 0, 0]);
        b.extend(len.to_be_bytes());
        b.extend([proto, ttl]);
    } else {
        b.extend([0x45, 0]);
        b.extend((len + 20).to_be_bytes());
        b.extend([0, 0, 0x40, 0, ttl, proto, 0, 0]);
    }
    b.extend(F::bytes(src));
    b.extend(F::bytes(dst));
    if !F::IS_V6 {
        let check = !sum(&b[14..34]);
        b[24..26].copy_from_slice(&check.to_be_bytes());
    }
    b.extend(body);
    b
}

/// An ICMP error of a type and code from `router` to the sender of the frame `about`, quoting its IP header and
/// `bytes` more.
pub fn icmp_error<F: Net>(
    router: &F::Addr,
    kind: u8,
    code: u8,
    about: &[u8],
    bytes: usize,
) -> Buffer {
    let at = 14 + F::SRC_OFFSET;
    let to = &about[at..at + (F::DST_OFFSET - F::SRC_OFFSET)];
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 5, 0];
    icmp.extend(&about[14..14 + F::HEADER_LEN + bytes]);
    let mut covered = Vec::new();
    if F::IS_V6 {
        covered = [F::bytes(router), to.to_vec()].concat();
        covered.extend((icmp.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, F::ICMP_PROTO]);
    }
    covered.extend(&icmp);
    let check = !sum(&covered);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    let dst = F::from_bytes(to);
    Buffer::new(frame::<F>(router, &dst, F::ICMP_PROTO, 64, &icmp))
}

/// What a frame without options or extensions shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen<F: Net> {
    pub tuple: Tuple<F::Addr>,
    pub proto: u8,
    pub ttl: u8,
    /// From the transport header on.
    pub segment: Vec<u8>,
}

/// Reads the IP packet that begins at `offset`.
pub fn see_at<F: Net>(bytes: &[u8], offset: usize) -> Seen<F> {
    let ip = &bytes[offset..];
    let half = F::DST_OFFSET - F::SRC_OFFSET;
    let segment = ip[F::HEADER_LEN..].to_vec();
    let port = |at: usize| Be16::new(u16::from_be_bytes([segment[at], segment[at + 1]]));
    let (proto, ttl) = if F::IS_V6 {
        (ip[6], ip[7])
    } else {
        (ip[9], ip[8])
    };
    Seen {
        tuple: Tuple {
            src: F::from_bytes(&ip[F::SRC_OFFSET..F::DST_OFFSET]),
            dst: F::from_bytes(&ip[F::DST_OFFSET..F::DST_OFFSET + half]),
            sport: port(0),
            dport: port(2),
        },
        proto,
        ttl,
        segment,
    }
}

pub fn see<F: Net>(packet: &Buffer) -> Seen<F> {
    see_at::<F>(&packet.bytes, 14)
}
