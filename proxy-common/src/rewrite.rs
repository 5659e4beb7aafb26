//! The rewrite: addresses, ports, hop limit, and the checksums that cover them.
//!
//! In: a packet, and the flow that says what its tuple becomes. How that changes the sums stands in the flow, so that
//! no packet of it is summed again.

use crate::{
    abi::{Flow, UDP},
    addr::{Family, V4},
    csum::Diff,
    packet::{Be16Pair, Head, L4Change, Packet},
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
    flow: &Flow<F::Addr>,
    forwarded: bool,
) -> Option<()> {
    let addrs = Diff::from_folded(flow.addr_change);
    let mut head = packet.head(L3 + F::HEADER_LEN)?;
    head.store(L3 + F::SRC_OFFSET, flow.to.src)?;
    head.store(L3 + F::DST_OFFSET, flow.to.dst)?;
    let mut header = addrs;
    if forwarded {
        header = header.and(count_down::<F>(&mut head, view.ip.ttl)?);
    }
    if F::ETHERTYPE == V4::ETHERTYPE {
        let sum: u16 = head.load(L3 + IP4_CSUM)?;
        head.store(L3 + IP4_CSUM, header.apply(sum))?;
    }
    if !view.has_ports() {
        return Some(());
    }
    packet.store(view.ip.l4, Be16Pair(flow.to.sport, flow.to.dport))?;
    let change = L4Change {
        pseudo: addrs,
        data: Diff::from_folded(flow.port_change),
        zero_is_none: view.ip.proto == UDP,
    };
    packet.fix_l4::<F>(view.ip.l4 + csum_offset(view.ip.proto), change)
}

/// Counts the hop limit down by one; gives the change of the IPv4 header's sum.
#[inline(always)]
fn count_down<F: Family>(head: &mut Head<'_>, ttl: u8) -> Option<Diff> {
    // The hop limit and its neighbour, the protocol: TTL first in IPv4, last in IPv6.
    let at = if F::IS_V6 { L3 + 6 } else { L3 + 8 };
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
