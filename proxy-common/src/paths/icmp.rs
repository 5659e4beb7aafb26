//! ICMP errors about translated packets: what the error quotes is put back to what its receiver sent.
//!
//! The quoted packet's answer would be a packet of a flow that this hook knows; that flow's rewrite, turned
//! round, is the quoted packet as its sender made it. So path MTU discovery works through a service address,
//! both ways.

use crate::{
    abi::{Dir, FlowKey, IfIndex, Route},
    addr::{Family, V4},
    edge::{
        Edge,
        decision::Decision,
        work::{Work, settle},
    },
    reason::{DropReason, PassReason},
    service::classify,
    sums::internet::Diff,
    tables::{Table, Tables},
    way::{self, By},
    wire::{
        packet::{Be16Pair, L4Change, Packet},
        parse::{Ip, ParseIp, Quoted, quoted},
        rewrite::{IP4_CSUM, count_down},
    },
};

/// The error's own header. Where its message begins is read from memory, and bounded, as in [`crate::wire::rewrite::Protocols`].
#[inline(always)]
fn outer_of<A: Copy>(work: &Work<A>) -> Ip<A> {
    Ip {
        // SAFETY: a reference is valid for reads.
        l4: unsafe { core::ptr::read_volatile(&raw const work.view.ip.l4) } & 0x7ff,
        ..work.view.ip
    }
}

/// Finds the flow that an ICMP error is about, and its way. Fills in the tuple of the quoted packet, the flow's entry and key, and the
/// hop; gives the offset of the quoted transport header.
#[inline(always)]
fn find<F: ParseIp, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Result<usize, Decision> {
    let outer = outer_of(work);
    let Some(Quoted { ip, tuple }) = quoted::<F, P>(packet, &outer) else {
        return Err(Decision::Pass(PassReason::NotService));
    };
    work.view.tuple = tuple;
    // The packet that would answer the quoted one is of the flow.
    work.key = FlowKey::new(tuple.inverse(), ip.proto, edge.dir);
    settle(work);
    let answer = &work.key.tuple;
    if !classify::may_be_to_service::<F, T>(tables, answer, ip.proto)
        && !classify::may_be_from_backend::<F, T>(tables, answer)
    {
        return Err(Decision::Pass(PassReason::NotService));
    }
    let Some(config) = tables.config() else {
        return Err(Decision::Pass(PassReason::NotConfigured));
    };
    let Some(cell) = tables
        .flow(Table::confirmed(ip.proto), &work.key)
        .or_else(|| tables.flow(Table::Pending, &work.key))
    else {
        return Err(Decision::Pass(PassReason::NotService));
    };
    work.flow = cell.get();
    settle(work);
    let flow = &work.flow;
    if flow.is_own() {
        return Err(Decision::Pass(PassReason::NotService));
    }
    let is_expected = flow.peer_ifindex == tables.ifindex()
        || (work.above != IfIndex::NONE && flow.peer_ifindex == work.above);
    if edge.dir == Dir::In && !is_expected && !work.is_admitted {
        return Err(Decision::Drop(DropReason::SourceCheck));
    }
    work.hop = match way::of_flow::<F, T>(edge, tables, config, cell, flow, By::Hints) {
        Ok(hop) => hop,
        Err(reason) => return Err(Decision::Pass(reason)),
    };
    settle(work);
    Ok(ip.l4)
}

/// Translates an ICMP error, if it is about a known flow; its way is then in `work.hop`.
#[inline(always)]
pub fn translate<F: ParseIp, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Result<(), Decision> {
    let quoted_l4 = find::<F, P, T>(edge, packet, tables, work)?;
    let forwarded = work.hop.route == Route::Forward && !work.hop.aside;
    if forwarded && work.view.ip.ttl <= 1 {
        return Err(Decision::Drop(DropReason::HopLimit));
    }
    match edit::<F, P>(packet, work, quoted_l4, forwarded) {
        Some(()) => Ok(()),
        None => Err(Decision::Drop(DropReason::EditFailed)),
    }
}

#[inline(always)]
fn edit<F: Family, P: Packet>(
    packet: &mut P,
    work: &mut Work<F::Addr>,
    quoted_l4: usize,
    forwarded: bool,
) -> Option<()> {
    let outer = outer_of(work);
    let inner_ip = outer.l4 + 8;
    // What its sender is to see quoted, and what is quoted.
    let (to, from) = (work.flow.to.inverse(), &work.view.tuple);
    packet.store(inner_ip + F::SRC_OFFSET, to.src)?;
    packet.store(inner_ip + F::DST_OFFSET, to.dst)?;
    packet.store(quoted_l4, Be16Pair(to.sport, to.dport))?;
    let addrs = Diff::default()
        .addr(&from.src, &to.src)
        .addr(&from.dst, &to.dst);
    let mut data = addrs
        .half(from.sport.0, to.sport.0)
        .half(from.dport.0, to.dport.0);
    if F::ETHERTYPE == V4::ETHERTYPE {
        let old: u16 = packet.load(inner_ip + IP4_CSUM)?;
        let new = addrs.apply(old);
        packet.store(inner_ip + IP4_CSUM, new)?;
        data = data.half(old, new);
    }
    settle(work);
    // A router's error keeps its source where the flow keeps its client's; else it must not be seen beyond
    // the rewrite, as the rest of the flow is not.
    let flow = &work.flow;
    let src = if flow.to.src == work.key.tuple.src {
        outer.src
    } else {
        flow.to.src
    };
    let outer_addrs = Diff::default()
        .addr(&outer.src, &src)
        .addr(&outer.dst, &flow.to.dst);
    let mut header = outer_addrs;
    let mut head = packet.head(F::HEADER_LEN)?;
    head.store(F::SRC_OFFSET, src)?;
    head.store(F::DST_OFFSET, flow.to.dst)?;
    if forwarded {
        header = header.and(count_down::<F>(&mut head, outer.ttl)?);
    }
    let mut pseudo = Diff::default();
    if F::ETHERTYPE == V4::ETHERTYPE {
        let sum: u16 = packet.load(IP4_CSUM)?;
        packet.store(IP4_CSUM, header.apply(sum))?;
    } else {
        pseudo = outer_addrs;
    }
    packet.fix_l4::<F>(
        outer.l4 + 2,
        L4Change {
            pseudo,
            data,
            zero_is_none: false,
        },
    )
}
