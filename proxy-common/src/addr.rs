//! The address families, and the byte-order types that keys and headers are made of.
//!
//! One source serves both families: everything above is generic over [`Family`]; what differs between IPv4
//! and IPv6 is an address type and a handful of constants.

use core::hash::Hash;

/// A 16-bit value in network byte order, as a port stands in a header. Never does arithmetic by accident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Be16(pub u16);

impl Be16 {
    /// From host byte order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// In host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An address as it lies in the packet: its 32-bit words, each holding the bytes in network order.
pub trait Addr: Copy + Eq + Hash + Default + core::fmt::Debug + crate::raw::Wire + 'static {
    /// `0.0.0.0` or `::`.
    const ANY: Self;
    /// How many 32-bit words the address has.
    const WORDS: usize;

    /// Word `i`, bytes in network order; 0 past the end.
    fn word(&self, i: usize) -> u32;

    /// Is this a loopback address (127/8, `::1`)?
    fn is_loopback(&self) -> bool;

    /// Is it an address that no packet on a wire has as its source? The stack refuses these whatever else holds (kernel
    /// `ip_route_input_slow`, `ip6_rcv_core`).
    fn is_no_source(&self) -> bool;

    /// The network that one subscriber has: the address itself, or its /64.
    fn network(&self) -> Self;

    /// An address of its words, bytes in network order; of IPv4 the first alone.
    fn from_words(words: [u32; 4]) -> Self;

    /// Of an address of each family, the one of this family.
    fn of_either(v4: Ip4, v6: Ip6) -> Self;

    /// All words folded into one, for hashes.
    #[inline(always)]
    fn fold(&self) -> u32 {
        let mut h = self.word(0);
        let mut i = 1;
        while i < Self::WORDS {
            h = h.rotate_left(7) ^ self.word(i);
            i += 1;
        }
        h
    }
}

/// An IPv4 address, bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Ip4(pub u32);

/// An IPv6 address, bytes in network order.
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Default, Debug)]
#[repr(transparent)]
pub struct Ip6(pub [u32; 4]);

/// Word by word: comparing the array would become a call of `bcmp` in the eBPF object.
impl PartialEq for Ip6 {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }
}

impl Hash for Ip6 {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<[u8; 4]> for Ip4 {
    fn from(b: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(b))
    }
}

impl From<core::net::Ipv4Addr> for Ip4 {
    fn from(a: core::net::Ipv4Addr) -> Self {
        a.octets().into()
    }
}

impl From<Ip4> for core::net::Ipv4Addr {
    fn from(a: Ip4) -> Self {
        a.0.to_ne_bytes().into()
    }
}

impl From<[u8; 16]> for Ip6 {
    fn from(b: [u8; 16]) -> Self {
        let w = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        Self([w(0), w(4), w(8), w(12)])
    }
}

impl From<core::net::Ipv6Addr> for Ip6 {
    fn from(a: core::net::Ipv6Addr) -> Self {
        a.octets().into()
    }
}

impl From<Ip6> for core::net::Ipv6Addr {
    fn from(a: Ip6) -> Self {
        let mut b = [0; 16];
        for (i, w) in a.0.iter().enumerate() {
            b[i * 4..i * 4 + 4].copy_from_slice(&w.to_ne_bytes());
        }
        b.into()
    }
}

impl Addr for Ip4 {
    const ANY: Self = Self(0);
    const WORDS: usize = 1;

    #[inline(always)]
    fn of_either(v4: Ip4, _: Ip6) -> Self {
        v4
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words[0])
    }

    #[inline(always)]
    fn word(&self, i: usize) -> u32 {
        if i == 0 { self.0 } else { 0 }
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.0.to_ne_bytes()[0] == 127
    }

    #[inline(always)]
    fn network(&self) -> Self {
        *self
    }

    /// 0/8, loopback, multicast, limited broadcast (RFC 1122 section 3.2.1.3). 240/4 is taken, as the stack takes it.
    #[inline(always)]
    fn is_no_source(&self) -> bool {
        let first = self.0.to_ne_bytes()[0];
        first == 0 || first == 127 || first & 0xf0 == 224 || self.0 == u32::MAX
    }
}

impl Addr for Ip6 {
    const ANY: Self = Self([0; 4]);
    const WORDS: usize = 4;

    #[inline(always)]
    fn of_either(_: Ip4, v6: Ip6) -> Self {
        v6
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn word(&self, i: usize) -> u32 {
        match i {
            0 => self.0[0],
            1 => self.0[1],
            2 => self.0[2],
            3 => self.0[3],
            _ => 0,
        }
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1u32.to_be()
    }

    #[inline(always)]
    fn network(&self) -> Self {
        Self([self.0[0], self.0[1], 0, 0])
    }

    /// Unspecified, loopback, multicast, IPv4-mapped (RFC 4291 sections 2.5.2, 2.5.3, 2.7; kernel 6af1799aaf3f, 5.5).
    #[inline(always)]
    fn is_no_source(&self) -> bool {
        let [a, b, c, d] = self.0;
        let is_mapped = c == 0xffff_u32.to_be();
        let is_low = c == 0 && u32::from_be(d) <= 1;
        a.to_ne_bytes()[0] == 0xff || (a | b == 0 && (is_mapped || is_low))
    }
}

/// Destination MAC, then source MAC: the first 12 bytes of an Ethernet header, as three words of memory.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct Macs(pub [u32; 3]);

impl Macs {
    /// Of a packet without an Ethernet header.
    pub const NONE: Self = Self([0; 3]);

    #[inline(always)]
    pub const fn new(dst: [u8; 6], src: [u8; 6]) -> Self {
        Self([
            u32::from_ne_bytes([dst[0], dst[1], dst[2], dst[3]]),
            u32::from_ne_bytes([dst[4], dst[5], src[0], src[1]]),
            u32::from_ne_bytes([src[2], src[3], src[4], src[5]]),
        ])
    }

    /// Of 16-bit words of memory, as the kernel's route look-up has them.
    #[inline(always)]
    pub const fn of_halves(dst: [u16; 3], src: [u16; 3]) -> Self {
        Self([
            join(dst[0], dst[1]),
            join(dst[2], src[0]),
            join(src[1], src[2]),
        ])
    }

    /// Source and destination change places.
    #[inline(always)]
    pub const fn swapped(self) -> Self {
        let [a, b, c] = self.0;
        let (a, b, c) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
        Self::new(
            [b[2], b[3], c[0], c[1], c[2], c[3]],
            [a[0], a[1], a[2], a[3], b[0], b[1]],
        )
    }

    /// Is the destination of the one the source of the other?
    #[inline(always)]
    pub const fn is_to_source_of(self, other: Self) -> bool {
        let ([a, b, _], [_, d, e]) = (self.0, other.0);
        let (a, b, d, e) = (
            a.to_ne_bytes(),
            b.to_ne_bytes(),
            d.to_ne_bytes(),
            e.to_ne_bytes(),
        );
        let begin = u16::from_ne_bytes([a[0], a[1]]) == u16::from_ne_bytes([d[2], d[3]]);
        begin && u32::from_ne_bytes([a[2], a[3], b[0], b[1]]) == u32::from_ne_bytes(e)
    }

    /// Is the destination this address?
    #[inline(always)]
    pub const fn is_to(self, mac: [u8; 6]) -> bool {
        self.is_to_source_of(Self::new([0; 6], mac))
    }

    /// Is the source a group address, which is nobody's (IEEE 802)?
    #[inline(always)]
    pub const fn is_from_group(self) -> bool {
        self.0[1].to_ne_bytes()[2] & 1 != 0
    }

    /// The destination's MAC.
    pub const fn dst(self) -> [u8; 6] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1]]
    }
}

/// The word of memory that two halves are, one behind the other.
#[inline(always)]
const fn join(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

macro_rules! wire {
    ($($t:ty),+) => {$(
        // SAFETY: transparent wrappers of integers, or of arrays of them.
        unsafe impl crate::raw::Wire for $t {}
    )+};
}
wire!(Be16, Ip4, Ip6, Macs);

/// An address family. A marker: all its knowledge is in the associated items.
pub trait Family: Copy + Default + 'static {
    type Addr: Addr;
    /// The EtherType, in host byte order.
    const ETHERTYPE: u16;
    /// Address family number of the kernel (`AF_INET`, `AF_INET6`).
    const AF: u8;
    const IS_V6: bool;
    /// Length of the fixed IP header in bytes.
    const HEADER_LEN: usize;
    /// Offset of the source address in the IP header.
    const SRC_OFFSET: usize;
    /// Offset of the destination address in the IP header.
    const DST_OFFSET: usize;
    /// The ICMP of this family, as an IP protocol number.
    const ICMP_PROTO: u8;
}

/// IPv4.
#[derive(Clone, Copy, Default, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Default, Debug)]
pub struct V6;

impl Family for V4 {
    type Addr = Ip4;
    const ETHERTYPE: u16 = 0x0800;
    const AF: u8 = 2;
    const IS_V6: bool = false;
    const HEADER_LEN: usize = 20;
    const SRC_OFFSET: usize = 12;
    const DST_OFFSET: usize = 16;
    const ICMP_PROTO: u8 = 1;
}

impl Family for V6 {
    type Addr = Ip6;
    const ETHERTYPE: u16 = 0x86dd;
    const AF: u8 = 10;
    const IS_V6: bool = true;
    const HEADER_LEN: usize = 40;
    const SRC_OFFSET: usize = 8;
    const DST_OFFSET: usize = 24;
    const ICMP_PROTO: u8 = 58;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn addresses_round_trip_in_network_order() {
        let a4 = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(Ipv4Addr::from(Ip4::from(a4)), a4);
        let a6: Ipv6Addr = "2001:db8::1:2".parse().unwrap();
        assert_eq!(Ipv6Addr::from(Ip6::from(a6)), a6);
        assert_eq!(Be16::new(80).0.to_ne_bytes(), [0, 80]);
    }

    /// In either byte order of the machine; docs/testing.md has how to run this under the other one.
    #[test]
    fn macs_lie_in_memory_as_in_a_header_whatever_they_are_made_of() {
        let (dst, src) = ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        let halves = |mac: [u8; 6]| {
            let half = |i: usize| u16::from_ne_bytes([mac[2 * i], mac[2 * i + 1]]);
            [half(0), half(1), half(2)]
        };
        let macs = Macs::of_halves(halves(dst), halves(src));
        assert_eq!(macs, Macs::new(dst, src));
        let bytes: Vec<u8> = macs.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes, [dst, src].concat());
    }

    #[test]
    fn addresses_are_equal_where_all_their_words_are() {
        let base = Ip6([1, 2, 3, 4]);
        assert_eq!(base, Ip6([1, 2, 3, 4]));
        for bit in 0..128 {
            let mut other = base;
            other.0[bit / 32] ^= 1 << (bit % 32);
            assert_ne!(base, other, "bit {bit}");
        }
        // Differences that would cancel one another out.
        assert_ne!(Ip6([1, 1, 0, 0]), Ip6([0, 0, 0, 0]));
        assert_ne!(Ip6([0, 1, 1, 0]), Ip6([0, 0, 0, 0]));
        assert_ne!(Ip6([0, 0, 1, 1]), Ip6([0, 0, 0, 0]));
        assert_ne!(Ip6([1, 0, 0, 1]), Ip6([0, 1, 1, 0]));
    }

    #[test]
    fn an_address_is_read_word_by_word() {
        let addr = Ip6([1, 2, 3, 4]);
        assert_eq!([0, 1, 2, 3, 4].map(|i| addr.word(i)), [1, 2, 3, 4, 0]);
        assert_eq!(Ip6::from_words([1, 2, 3, 4]), addr);
        assert_eq!([0, 1].map(|i| Ip4(7).word(i)), [7, 0]);
        assert_eq!(Ip4::from_words([7, 8, 9, 10]), Ip4(7));
        assert_eq!(
            (Ip4::of_either(Ip4(7), addr), Ip6::of_either(Ip4(7), addr)),
            (Ip4(7), addr)
        );
        assert_eq!(
            (Ip4(7).network(), addr.network()),
            (Ip4(7), Ip6([1, 2, 0, 0]))
        );
        assert_eq!(Ip4(7).fold(), 7);
        assert_eq!(addr.fold(), (1 << 21) ^ (2 << 14) ^ (3 << 7) ^ 4);
    }

    #[test]
    fn macs_are_read_as_they_lie_in_a_frame() {
        let (dst, src) = ([2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13]);
        let macs = Macs::new(dst, src);
        assert_eq!(macs.swapped(), Macs::new(src, dst));
        assert_eq!(macs.dst(), dst);
        assert!(macs.is_to(dst) && macs.swapped().is_to(src) && !macs.is_to(src));
        assert!(macs.is_to_source_of(macs.swapped()));
        for i in 0..6 {
            let mut other = dst;
            other[i] ^= 0x40;
            assert!(!macs.is_to(other), "byte {i}");
        }
        assert!(!macs.is_from_group());
        assert!(Macs::new(dst, [9, 9, 10, 11, 12, 13]).is_from_group());
        // The other bits of a source's first byte, and the destination's, say nothing of that.
        assert!(!Macs::new([0xff; 6], [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]).is_from_group());
    }

    #[test]
    fn loopback_is_127_slash_8_and_colon_colon_1() {
        assert!(Ip4::from(Ipv4Addr::new(127, 8, 0, 1)).is_loopback());
        assert!(!Ip4::from(Ipv4Addr::new(128, 0, 0, 1)).is_loopback());
        assert!(Ip6::from(Ipv6Addr::LOCALHOST).is_loopback());
        assert!(!Ip6::from(Ipv6Addr::UNSPECIFIED).is_loopback());
        for text in ["1::1", "0:0:1::1", "::1:0:1", "::2", "::1:1"] {
            let addr: Ipv6Addr = text.parse().unwrap();
            assert!(!Ip6::from(addr).is_loopback(), "{text}");
        }
    }

    #[test]
    fn an_address_of_no_single_host_is_no_source() {
        for (text, refused) in [
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("127.0.0.1", true),
            ("224.0.0.1", true),
            ("239.255.255.255", true),
            ("255.255.255.255", true),
            ("240.0.0.1", false),
            ("255.255.255.254", false),
            ("10.0.0.1", false),
            ("1.0.0.0", false),
        ] {
            let addr: Ipv4Addr = text.parse().unwrap();
            assert_eq!(Ip4::from(addr).is_no_source(), refused, "{text}");
        }
        for (text, refused) in [
            ("::", true),
            ("::1", true),
            ("ff02::1", true),
            ("::ffff:10.0.0.1", true),
            ("::2", false),
            ("1::", false),
            ("0:0:1::", false),
            ("0:0:1::1", false),
            ("1::ffff:10.0.0.1", false),
            ("::1:0:1", false),
            ("::fffe:10.0.0.1", false),
            ("fe80::1", false),
            ("2001:db8::1", false),
            ("fd00::", false),
        ] {
            let addr: Ipv6Addr = text.parse().unwrap();
            assert_eq!(Ip6::from(addr).is_no_source(), refused, "{text}");
        }
    }
}
