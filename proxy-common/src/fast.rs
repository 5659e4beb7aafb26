//! The fast path: established flows with hints that hold, and all that is not for us.
//!
//! It is small, so that it stays in the instruction cache, and takes only packets whose headers are all at fixed places.
//! What it cannot finish is [`Verdict::SLOW`], with the packet untouched.

use crate::{
    abi::{FlowKey, SCTP, TCP, Tuple, UDP},
    addr::{Family, V4, V6},
    classify,
    decide::has_news,
    hook::Hook,
    packet::{Be16Pair, Head, Packet},
    parse::{L3, ParseIp, View, ethertype},
    path,
    reason::Reason,
    rewrite::Protocols,
    send::finish,
    tables::{Table, Tables},
    verdict::Verdict,
};

/// Runs the fast path.
#[inline(always)]
pub fn fast<P: Packet, T: Tables<V4> + Tables<V6>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
) -> Verdict {
    match ethertype(packet) {
        Some(V4::ETHERTYPE) => family::<V4, P, T>(hook, packet, tables),
        Some(V6::ETHERTYPE) => family::<V6, P, T>(hook, packet, tables),
        _ => Verdict::pass(Reason::NotService),
    }
}

#[inline(always)]
fn family<F: ParseIp, P: Packet, T: Tables<F>>(hook: Hook, packet: &mut P, tables: &T) -> Verdict {
    let l4 = L3 + F::HEADER_LEN;
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
    let mut view = View {
        tuple: Tuple {
            src: ip.src,
            dst: ip.dst,
            sport,
            dport,
        },
        ip,
        flags: 0,
    };
    let to_service = classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto);
    if !to_service && !classify::may_be_from_backend::<F, T>(tables, &view.tuple) {
        // An opening packet past every service address may be in the way of an old flow.
        if view.is_tcp() && classify::may_be_to_backend::<F, T>(tables, &view.tuple) {
            let Some(flags) = tcp_flags(packet, l4) else {
                return Verdict::SLOW;
            };
            view.flags = flags;
            if view.opens() {
                return Verdict::SLOW;
            }
        }
        return Verdict::pass(Reason::NotService);
    }
    if view.is_tcp() {
        let Some(flags) = tcp_flags(packet, l4) else {
            return Verdict::SLOW;
        };
        view.flags = flags;
    }
    let key = FlowKey::new(view.tuple, view.ip.proto, hook.dir);
    let Some(cell) = tables.flow(Table::Confirmed, &key) else {
        // The second look at the confirmed table is for what another CPU confirms at this moment.
        let is_known = |table| tables.flow(table, &key).is_some();
        if to_service || is_known(Table::Pending) || is_known(Table::Confirmed) {
            return Verdict::SLOW;
        }
        return Verdict::pass(Reason::NotService);
    };
    let Some(config) = tables.config() else {
        return Verdict::SLOW;
    };
    let flow = cell.get();
    if has_news::<F, T>(tables, config, &view, &flow) {
        return Verdict::SLOW;
    }
    match path::by_hints(hook, tables.ifindex(), config, &flow) {
        Some(hop) => finish::<F, P, T>(
            Protocols::TcpAndUdp,
            hook,
            packet,
            &view,
            &flow,
            &hop,
            tables,
        ),
        None => Verdict::SLOW,
    }
}

#[inline(always)]
fn tcp_flags<P: Packet>(packet: &mut P, l4: usize) -> Option<u8> {
    let flags = packet.head(l4 + TCP_HEADER)?.load::<u16>(l4 + 12)?;
    Some(flags.to_ne_bytes()[1])
}

const UDP_HEADER: usize = 8;
/// Without options.
const TCP_HEADER: usize = 20;

/// Neither TCP nor UDP: SCTP has the slow path alone, ICMP errors may be about a flow, and behind IPv6's extensions
/// there may be one.
#[inline(always)]
fn other<F: ParseIp>(head: &Head<'_>, proto: u8) -> Verdict {
    let is_error = proto == F::ICMP_PROTO
        && match head.load::<u16>(L3 + F::HEADER_LEN) {
            Some(kind) => F::is_icmp_error(kind.to_ne_bytes()[0]),
            None => true,
        };
    if is_error || proto == SCTP || F::is_extension(proto) {
        return Verdict::SLOW;
    }
    Verdict::pass(Reason::NotService)
}
