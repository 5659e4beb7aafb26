//! The rewrite: addresses, ports, hop limit, and the checksums that cover them.
//!
//! In: a packet, and the flow that says what its tuple becomes. How that changes the sums stands in the flow, so that
//! no packet of it is summed again.

use crate::{
    abi::{Flow, UDP},
    addr::{Family, V4},
    sums::{crc32c, internet::Diff},
    wire::{
        packet::{Be16Pair, Head, L4Change, Packet},
        parse::{Part, View, csum_offset},
    },
};

/// Offset of the checksum in an IPv4 header.
pub const IP4_CSUM: usize = 10;

/// What may come by a path. A constant, so that the fast path is built without what only the slow one carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocols {
    TcpAndUdp,
    All,
}

impl Protocols {
    #[inline(always)]
    pub fn is_sctp<A>(self, view: &View<A>) -> bool {
        self == Self::All && view.is_sctp()
    }

    /// Offset of the transport header. On the slow path read from memory for each use, and bounded at once: what the
    /// compiler spills to the stack between the check in [`Bytes::at`] and the use has for 5.10 the bounds that it was
    /// spilled with. No header that was read begins so far in that this cuts anything off.
    ///
    /// [`Bytes::at`]: crate::wire::packet::Bytes::at
    #[inline(always)]
    pub fn transport<A>(self, view: &View<A>) -> usize {
        if self == Self::All {
            // SAFETY: a reference is valid for reads.
            unsafe { core::ptr::read_volatile(&raw const view.ip.l4) & 0x7ff }
        } else {
            view.ip.l4
        }
    }
}

/// Rewrites the IP header at the start: addresses, hop limit, IPv4's sum. Gives what has changed in it, but for that sum.
#[inline(always)]
pub fn ip_header<F: Family>(
    head: &mut Head<'_>,
    ttl: u8,
    flow: &Flow<F::Addr>,
    forwarded: bool,
) -> Option<Diff> {
    head.store(F::SRC_OFFSET, flow.to.src)?;
    head.store(F::DST_OFFSET, flow.to.dst)?;
    let mut change = Diff::from_folded(flow.addr_change);
    if forwarded {
        change = change.and(count_down::<F>(head, ttl)?);
    }
    if F::ETHERTYPE == V4::ETHERTYPE {
        let sum: u16 = head.load(IP4_CSUM)?;
        head.store(IP4_CSUM, change.apply(sum))?;
    }
    Some(change)
}

/// Rewrites addresses and ports. `forwarded`: the packet does not go through the stack, so its hop limit is
/// counted down here. `None`: an edit failed.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    protocols: Protocols,
    packet: &mut P,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
    forwarded: bool,
) -> Option<()> {
    let addrs = Diff::from_folded(flow.addr_change);
    let header = {
        let mut head = packet.head(F::HEADER_LEN)?;
        ip_header::<F>(&mut head, view.ip.ttl, flow, forwarded)?
    };
    if !view.has_ports() {
        return Some(());
    }
    let ports = Be16Pair(flow.to.sport, flow.to.dport);
    packet.store(protocols.transport(view), ports)?;
    let field = protocols.transport(view) + csum_offset(view.ip.proto);
    if protocols.is_sctp(view) {
        // In IPv4 the header's own sum takes back what changes in it.
        let unbalanced = if F::IS_V6 { header } else { Diff::default() };
        return fix_crc(protocols, packet, view, flow, field, unbalanced);
    }
    let change = L4Change {
        pseudo: addrs,
        data: Diff::from_folded(flow.port_change),
        zero_is_none: view.ip.proto == UDP,
    };
    packet.fix_l4::<F>(field, change)
}

/// Brings the CRC32c at `field` in line with the new ports of an SCTP packet. It covers no addresses, and how the
/// ports change it depends on the packet's length alone. `unbalanced`: what has changed in the IP header, as in
/// [`Packet::note_change`].
#[inline(always)]
fn fix_crc<A, P: Packet>(
    protocols: Protocols,
    packet: &mut P,
    view: &View<A>,
    flow: &Flow<A>,
    field: usize,
    unbalanced: Diff,
) -> Option<()> {
    let (from, to) = (&view.tuple, &flow.to);
    let [old, new] = [(from.sport, from.dport), (to.sport, to.dport)].map(|(sport, dport)| {
        let ([s0, s1], [d0, d1]) = (sport.0.to_ne_bytes(), dport.0.to_ne_bytes());
        u32::from_ne_bytes([s0, s1, d0, d1])
    });
    if old == new {
        packet.note_change(unbalanced);
        return Some(());
    }
    // A first fragment does not tell the length of the whole.
    if view.ip.part != Part::Whole {
        return None;
    }
    let mut unbalanced = unbalanced.word(old, new);
    // Of a partial checksum the field is 0 and must stay so: the kernel's late CRC is over the packet as it stands,
    // field included (net/core/dev.c, `skb_crc32c_csum_help`).
    if !packet.checksum_is_partial(field) {
        let len = view.ip.len.wrapping_sub((protocols.transport(view)) as u32) & 0xffff;
        let before: u32 = packet.load(field)?;
        let after = before ^ crc32c::first_word_change(old, new, len);
        packet.store(field, after)?;
        unbalanced = unbalanced.word(before, after);
    }
    packet.note_change(unbalanced);
    Some(())
}

/// Counts the hop limit down by one; gives the change of the IPv4 header's sum.
#[inline(always)]
pub fn count_down<F: Family>(head: &mut Head<'_>, ttl: u8) -> Option<Diff> {
    // The hop limit and its neighbour, the protocol: TTL first in IPv4, last in IPv6.
    let at = if F::IS_V6 { 6 } else { 8 };
    let old: u16 = head.load(at)?;
    let [first, second] = old.to_ne_bytes();
    let less = ttl.wrapping_sub(1);
    let new = u16::from_ne_bytes(if F::IS_V6 {
        [first, less]
    } else {
        [less, second]
    });
    head.store(at, new)?;
    Some(Diff::default().half(old, new))
}
