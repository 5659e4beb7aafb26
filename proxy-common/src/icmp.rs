//! ICMP errors about translated packets: what the error quotes is put back to what its receiver sent.
//!
//! The quoted packet's answer would be a packet of a flow that this hook knows; that flow's rewrite, turned
//! round, is the quoted packet as its sender made it. So path MTU discovery works through a service address,
//! both ways.

use crate::{
    abi::{Dir, FlowKey, Route, Tuple},
    addr::{Family, V4},
    classify,
    csum::Diff,
    hook::Hook,
    packet::{Be16Pair, L4Change, Packet},
    parse::{Ip, L3, ParseIp, Quoted, quoted},
    path::{self, Hop},
    reason::Reason,
    rewrite::{IP4_CSUM, count_down},
    tables::{Table, Tables},
    verdict::Verdict,
    work::Work,
};

/// What to do with an ICMP error.
struct Translation<A> {
    quoted: Quoted<A>,
    /// The addresses and ports that the quoted packet is given.
    inner: Tuple<A>,
    /// The addresses that the error itself is given.
    src: A,
    dst: A,
    hop: Hop,
}

/// The error's own header. Where its message begins is read from memory, and bounded, as in [`crate::rewrite::Protocols`].
#[inline(always)]
fn outer_of<A: Copy>(work: &Work<A>) -> Ip<A> {
    Ip {
        // SAFETY: a reference is valid for reads.
        l4: unsafe { core::ptr::read_volatile(&raw const work.view.ip.l4) } & 0x7ff,
        ..work.view.ip
    }
}

/// Finds the flow that an ICMP error is about.
#[inline(always)]
fn find<F: ParseIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &P,
    tables: &T,
    work: &Work<F::Addr>,
) -> Result<Translation<F::Addr>, Reason> {
    let outer = &outer_of(work);
    let Some(q) = quoted::<F, P>(packet, outer) else {
        return Err(Reason::NotService);
    };
    let answer = q.tuple.inverse();
    if !classify::may_be_to_service::<F, T>(tables, &answer, q.ip.proto)
        && !classify::may_be_from_backend::<F, T>(tables, &answer)
    {
        return Err(Reason::NotService);
    }
    let Some(config) = tables.config() else {
        return Err(Reason::NotConfigured);
    };
    let key = FlowKey::new(answer, q.ip.proto, hook.dir);
    let Some(cell) = tables
        .flow(Table::Confirmed, &key)
        .or_else(|| tables.flow(Table::Pending, &key))
    else {
        return Err(Reason::NotService);
    };
    let flow = cell.get();
    if flow.is_own() {
        return Err(Reason::NotService);
    }
    let is_expected = flow.peer_ifindex == tables.ifindex()
        || (work.above != 0 && flow.peer_ifindex == work.above);
    if hook.dir == Dir::In && !is_expected && !work.is_admitted {
        return Err(Reason::SourceCheck);
    }
    let hop = path::of_flow::<F, T>(hook, tables, config, cell, &flow, false)?;
    // A router's error keeps its source where the flow keeps its client's; else it must not be seen beyond
    // the rewrite, as the rest of the flow is not.
    let src = if flow.to.src == answer.src {
        outer.src
    } else {
        flow.to.src
    };
    Ok(Translation {
        quoted: q,
        inner: flow.to.inverse(),
        src,
        dst: flow.to.dst,
        hop,
    })
}

/// Translates an ICMP error, if it is about a known flow; gives its way.
#[inline(always)]
pub fn translate<F: ParseIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
    work: &Work<F::Addr>,
) -> Result<Hop, Verdict> {
    let outer = &outer_of(work);
    let t = match find::<F, P, T>(hook, packet, tables, work) {
        Ok(t) => t,
        Err(Reason::SourceCheck) => return Err(Verdict::drop(Reason::SourceCheck)),
        Err(reason) => return Err(Verdict::pass(reason)),
    };
    let forwarded = t.hop.route == Route::Forward && !t.hop.aside;
    if forwarded && outer.ttl <= 1 {
        return Err(Verdict::drop(Reason::HopLimit));
    }
    match edit::<F, P>(packet, outer, &t, forwarded) {
        Some(()) => Ok(t.hop),
        None => Err(Verdict::drop(Reason::EditFailed)),
    }
}

#[inline(always)]
fn edit<F: Family, P: Packet>(
    packet: &mut P,
    outer: &Ip<F::Addr>,
    t: &Translation<F::Addr>,
    forwarded: bool,
) -> Option<()> {
    let inner_ip = outer.l4 + 8;
    let from = &t.quoted.tuple;
    let to = &t.inner;
    packet.store(inner_ip + F::SRC_OFFSET, to.src)?;
    packet.store(inner_ip + F::DST_OFFSET, to.dst)?;
    packet.store(t.quoted.ip.l4, Be16Pair(to.sport, to.dport))?;
    let addrs = Diff::default()
        .addr(&from.src, &to.src)
        .addr(&from.dst, &to.dst);
    let mut data = addrs
        .half(from.sport.0, to.sport.0)
        .half(from.dport.0, to.dport.0);
    let outer_addrs = Diff::default()
        .addr(&outer.src, &t.src)
        .addr(&outer.dst, &t.dst);
    let mut pseudo = Diff::default();
    let mut header = outer_addrs;
    let mut head = packet.head(L3 + F::HEADER_LEN)?;
    head.store(L3 + F::SRC_OFFSET, t.src)?;
    head.store(L3 + F::DST_OFFSET, t.dst)?;
    if forwarded {
        header = header.and(count_down::<F>(&mut head, outer.ttl)?);
    }
    if F::ETHERTYPE == V4::ETHERTYPE {
        let old: u16 = packet.load(inner_ip + IP4_CSUM)?;
        let new = addrs.apply(old);
        packet.store(inner_ip + IP4_CSUM, new)?;
        data = data.half(old, new);
        let sum: u16 = packet.load(L3 + IP4_CSUM)?;
        packet.store(L3 + IP4_CSUM, header.apply(sum))?;
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
