//! Writing a decided tuple into the packet, checksums included.

use crate::{
    abi::{Tuple, UDP},
    addr::{Family, V4},
    csum::Diff,
    packet::{Be16Pair, L4Change, Packet},
    parse::{L3, View, csum_offset},
};

/// Offset of the checksum in an IPv4 header.
pub const IP4_CSUM: usize = 10;

/// Rewrites addresses and ports. `forwarded`: the packet does not go through the stack, so its hop limit is
/// counted down here. `None`: an edit failed.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    view: &View<F::Addr>,
    to: &Tuple<F::Addr>,
    forwarded: bool,
) -> Option<()> {
    let from = &view.tuple;
    let addrs = Diff::default()
        .addr(&from.src, &to.src)
        .addr(&from.dst, &to.dst);
    packet.store(L3 + F::SRC_OFFSET, to.src)?;
    packet.store(L3 + F::DST_OFFSET, to.dst)?;
    let mut header = addrs;
    if forwarded {
        header = header.and(count_down::<F, P>(packet, view.ip.ttl)?);
    }
    if F::ETHERTYPE == V4::ETHERTYPE {
        let sum: u16 = packet.load(L3 + IP4_CSUM)?;
        packet.store(L3 + IP4_CSUM, header.apply(sum))?;
    }
    if !view.has_ports() {
        return Some(());
    }
    packet.store(view.ip.l4, Be16Pair(to.sport, to.dport))?;
    let ports = Diff::default()
        .half(from.sport.0, to.sport.0)
        .half(from.dport.0, to.dport.0);
    let change = L4Change {
        pseudo: addrs,
        data: ports,
        zero_is_none: view.ip.proto == UDP,
    };
    packet.fix_l4::<F>(view.ip.l4 + csum_offset(view.ip.proto), change)
}

/// Counts the hop limit down by one; gives the change of the IPv4 header's sum.
#[inline(always)]
fn count_down<F: Family, P: Packet>(packet: &mut P, ttl: u8) -> Option<Diff> {
    // The hop limit and its neighbour, the protocol: TTL first in IPv4, last in IPv6.
    let at = if F::IS_V6 { L3 + 6 } else { L3 + 8 };
    let old: u16 = packet.load(at)?;
    let [first, second] = old.to_ne_bytes();
    let less = ttl.wrapping_sub(1);
    let new = u16::from_ne_bytes(if F::IS_V6 {
        [first, less]
    } else {
        [less, second]
    });
    packet.store(at, new)?;
    Some(Diff::default().half(old, new))
}
