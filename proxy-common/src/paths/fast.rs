//! The fast path: established flows with hints that hold, and all that is not for us.
//!
//! It is small, so that it stays in the instruction cache, and takes only packets whose headers are all at fixed places.
//! What it cannot finish is [`Verdict::SLOW`], with the packet untouched.

use crate::{
    abi::{Dir, Flow, FlowKey, Route, SCTP, TCP, Tuple, UDP},
    addr::{Family, V4, V6},
    edge::{Edge, admit, hook::Hook, verdict::Verdict},
    flow::{own, proof},
    paths::{
        decide::has_news,
        send::{counted_bytes, is_sent_by_kernel, largest, leave, may_be_forwarded},
    },
    reason::{DropReason, PassReason},
    service::classify,
    sums::internet::Diff,
    tables::{Table, Tables, hints_hold},
    way,
    wire::{
        packet::{Be16Pair, Head, L4Change, Packet},
        parse::{ParseIp, View, csum_offset},
        rewrite::{Protocols, ip_header},
    },
};

/// Runs the fast path.
#[inline(always)]
pub fn fast<P: Packet, T: Tables<V4> + Tables<V6>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
) -> Verdict {
    match packet.ethertype() {
        Some(V4::ETHERTYPE) => family::<V4, P, T>(hook, packet, tables),
        Some(V6::ETHERTYPE) => family::<V6, P, T>(hook, packet, tables),
        _ => Verdict::pass(PassReason::NotService),
    }
}

#[inline(always)]
fn family<F: ParseIp, P: Packet, T: Tables<F>>(hook: Hook, packet: &mut P, tables: &T) -> Verdict {
    let edge = hook.edge;
    let l4 = F::HEADER_LEN;
    let Some(head) = packet.head(l4 + UDP_HEADER) else {
        return Verdict::SLOW;
    };
    let Some(ip) = F::plain(&head) else {
        return Verdict::SLOW;
    };
    if ip.proto != TCP && ip.proto != UDP {
        return other::<F>(&head, ip.proto);
    }
    let Some(Be16Pair(sport, dport)) = head.load(l4) else {
        return Verdict::SLOW;
    };
    let len = ip.len;
    let mut view = View {
        tuple: Tuple {
            src: ip.src,
            dst: ip.dst,
            sport,
            dport,
        },
        ip,
        flags: 0,
        shows: 0,
        claims: 0,
    };
    let to_service = classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto);
    if !to_service && !classify::may_be_from_backend::<F, T>(tables, &view.tuple) {
        // An opening packet past every service address may be in the way of an old flow.
        if view.is_tcp() && classify::may_be_to_backend::<F, T>(tables, &view.tuple) {
            let Some((flags, _)) = tcp_numbers(packet, l4) else {
                return Verdict::SLOW;
            };
            view.flags = flags;
            if view.opens() {
                return Verdict::SLOW;
            }
        }
        // The answer to a datagram that leaves from a service's port must be told from requests.
        if own::may_leave_from_service::<F, T>(edge, tables, &view)
            && own::is_new::<F, T>(tables, &view)
        {
            return Verdict::SLOW;
        }
        return Verdict::pass(PassReason::NotService);
    }
    if view.is_tcp() {
        let Some((flags, shows)) = tcp_numbers(packet, l4) else {
            return Verdict::SLOW;
        };
        view.flags = flags;
        view.shows = shows;
    }
    let key = FlowKey::new(view.tuple, view.ip.proto, edge.dir);
    let confirmed = Table::confirmed(view.ip.proto);
    let Some(cell) = tables.flow(confirmed, &key) else {
        // To an address that is neither a service's nor this node's nothing is to a NodePort. It may be a backend's answer to whom the
        // node forwards from a device without hooks, and whose flow is not confirmed: TC, behind XDP, looks further. What opens a
        // connection may be in the way of an old flow, and a datagram that leaves is for the slow path to note. Asked here and not
        // before, so that packets of flows do not pay for it. By the key, which lies in memory already.
        let may_leave = edge.is_xdp()
            || (to_service
                && (edge.dir == Dir::In || view.is_tcp())
                && !classify::may_be_from_backend::<F, T>(tables, &key.tuple));
        if may_leave
            && !(view.is_tcp() && view.opens())
            && !classify::is_served_address::<F, T>(tables, &key.tuple.dst)
        {
            return Verdict::pass(PassReason::NotService);
        }
        // The second look at the table of confirmed flows is for what another CPU confirms at this moment.
        let is_known = |table| tables.flow(table, &key).is_some();
        if to_service || is_known(Table::Pending) || is_known(confirmed) {
            return Verdict::SLOW;
        }
        if let Some(config) = tables.config()
            && admit::asks_strangers(edge, config)
        {
            return Verdict::SLOW;
        }
        return Verdict::pass(PassReason::NotService);
    };
    let Some(config) = tables.config() else {
        return Verdict::SLOW;
    };
    let flow = cell.peek();
    if has_news::<F, T>(tables, config, &view, flow)
        || !is_taken::<F, P, T>(edge, packet, tables, flow)
        || len < (l4 + UDP_HEADER) as u32
        || !packet.holds(len)
    {
        return Verdict::SLOW;
    }
    let here = tables.ifindex();
    let aside = way::is_astray(edge, here, flow);
    let route = if aside {
        hints_hold(flow, config.epoch).then_some(Route::Forward)
    } else {
        way::hinted(edge, here, config, flow)
    };
    let Some(route) = route else {
        return Verdict::SLOW;
    };
    let forwarded = route == Route::Forward && !aside;
    if forwarded {
        let largest = largest(Protocols::TcpAndUdp, packet, &view);
        if may_be_forwarded(view.ip.ttl, largest, flow.mtu).is_err() {
            return Verdict::SLOW;
        }
    }
    let shown = proof::shown(&view);
    if view.is_tcp()
        && flow.proof != shown
        && view.acknowledges()
        && proof::may_follow(flow.proof, shown)
    {
        cell.show(shown);
    }
    let bytes = counted_bytes(edge, packet, &view);
    let by_kernel = is_sent_by_kernel(edge, route, flow.macs);
    let needs_link = route != Route::Stack && !by_kernel;
    if edit::<F, P>(packet, &view, flow, needs_link, forwarded).is_none() {
        tables.count_reason(hook.index, DropReason::EditFailed.reason());
        return Verdict::drop(DropReason::EditFailed);
    }
    tables.count_packet(flow.backend, bytes, flow.is_reply());
    if route == Route::Stack {
        return Verdict::TRANSLATED;
    }
    if by_kernel {
        return Verdict::neighbour(flow.ifindex);
    }
    leave(edge, route, flow.ifindex, here)
}

/// Rewrites a packet of a known flow, whose headers are at fixed places, and makes it ready to leave by the flow's hints. Their bounds are
/// checked once, and each word of the flow is read where it goes.
#[inline(always)]
fn edit<F: Family, P: Packet>(
    packet: &mut P,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
    needs_link: bool,
    forwarded: bool,
) -> Option<()> {
    let l4 = F::HEADER_LEN;
    let change = L4Change {
        pseudo: Diff::from_folded(flow.addr_change),
        data: Diff::from_folded(flow.port_change),
        zero_is_none: !view.is_tcp(),
    };
    // First, since what TC's helper does to a packet ends every check of its bounds.
    packet.fix_l4::<F>(
        l4 + csum_offset(if view.is_tcp() { TCP } else { UDP }),
        change,
    )?;
    let (macs, mut head) = packet.framed_head(l4 + size_of::<Be16Pair>())?;
    ip_header::<F>(&mut head, view.ip.ttl, flow, forwarded)?;
    head.store(l4, Be16Pair(flow.to.sport, flow.to.dport))?;
    match macs {
        _ if !needs_link => Some(()),
        Some(mut macs) => {
            macs.set(flow.macs);
            Some(())
        }
        None => packet.set_macs(flow.macs),
    }
}

/// Is a packet that comes in one that the stack would take ([`crate::edge::admit`])? It comes in by the device that its flow expects, addressed to
/// it, with a header that is as its sender made it.
#[inline(always)]
fn is_taken<F: ParseIp, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &mut P,
    tables: &T,
    flow: &Flow<F::Addr>,
) -> bool {
    if edge.dir == Dir::Out {
        return true;
    }
    if flow.peer_ifindex != tables.ifindex() {
        return false;
    }
    let Some((frame, head)) = packet.framed_head(F::HEADER_LEN) else {
        return false;
    };
    if !F::is_sound_plain(&head) {
        return false;
    }
    let Some(frame) = frame else {
        return packet.is_to_host();
    };
    let frame = frame.get();
    if packet.is_to_host() || frame.is_to_source_of(flow.macs) {
        return true;
    }
    match tables.device(tables.ifindex()) {
        Some(device) => admit::is_addressed(packet, frame, device),
        None => false,
    }
}

/// A segment's flags, and the number that it acknowledges, in host byte order.
#[inline(always)]
fn tcp_numbers<P: Packet>(packet: &mut P, l4: usize) -> Option<(u8, u32)> {
    let head = packet.head(l4 + TCP_HEADER)?;
    let flags = head.load::<u16>(l4 + 12)?;
    let shows = head.load::<u32>(l4 + 8)?;
    Some((flags.to_ne_bytes()[1], u32::from_be(shows)))
}

const UDP_HEADER: usize = 8;
/// Without options.
const TCP_HEADER: usize = 20;

/// Neither TCP nor UDP: SCTP has the slow path alone, ICMP errors may be about a flow, and behind IPv6's extensions
/// there may be one.
#[inline(always)]
fn other<F: ParseIp>(head: &Head<'_>, proto: u8) -> Verdict {
    let is_error = proto == F::ICMP_PROTO
        && match head.load::<u16>(F::HEADER_LEN) {
            Some(kind) => F::is_icmp_error(kind.to_ne_bytes()[0]),
            None => true,
        };
    if is_error || proto == SCTP || F::is_extension(proto) {
        return Verdict::SLOW;
    }
    Verdict::pass(PassReason::NotService)
}
