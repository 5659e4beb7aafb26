//! The straight line that every packet takes: parse, gate, decide, edit, send; first on the fast path, and where
//! that does not suffice from the start again on the slow one.

use crate::{
    abi::{Dir, Flow, FlowKey, Route},
    addr::{Family, V4, V6},
    answer::{self, AnswerIp},
    classify,
    decide::{Decision, decide, has_news},
    fragment,
    hook::Hook,
    icmp,
    packet::Packet,
    parse::{L3, ParseIp, Parsed, Part, View, ethertype, parse},
    path::{self, Hop},
    reason::Reason,
    rewrite,
    tables::{Table, Tables},
    verdict::{Action, Verdict},
    work::Work,
};

/// The fast path: established flows with hints that hold, and all that is not for us. It is small, so that it
/// stays in the instruction cache; what it cannot finish is [`Verdict::SLOW`], with the packet untouched.
#[inline(always)]
pub fn fast<P: Packet, T: Tables<V4> + Tables<V6>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
) -> Verdict {
    match ethertype(packet) {
        Some(V4::ETHERTYPE) => fast_family::<V4, P, T>(hook, packet, tables),
        Some(V6::ETHERTYPE) => fast_family::<V6, P, T>(hook, packet, tables),
        _ => Verdict::pass(Reason::NotService),
    }
}

#[inline(always)]
fn fast_family<F: ParseIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
) -> Verdict {
    let view = match parse::<F, P>(packet) {
        Parsed::Transport(view) => view,
        Parsed::Other(Reason::NotService) => return Verdict::pass(Reason::NotService),
        Parsed::IcmpError(_) | Parsed::Other(_) => return Verdict::SLOW,
    };
    if view.ip.part != Part::Whole {
        return Verdict::SLOW;
    }
    let to_service = classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto);
    if !to_service && !classify::may_be_from_backend::<F, T>(tables, &view.tuple) {
        return Verdict::pass(Reason::NotService);
    }
    let key = FlowKey::new(view.tuple, view.ip.proto, hook.dir);
    let Some(cell) = tables.flow(Table::Confirmed, &key) else {
        if to_service || tables.flow(Table::Pending, &key).is_some() {
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
        Some(hop) => finish::<F, P, T>(hook, packet, &view, &flow, &hop, tables),
        None => Verdict::SLOW,
    }
}

/// The slow path of one family: everything, for a packet that the fast path left.
#[inline(always)]
pub fn slow<F: ParseIp + AnswerIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Verdict {
    let verdict = match parse::<F, P>(packet) {
        Parsed::Transport(view) => {
            work.view = view;
            transport::<F, P, T>(hook, packet, tables, work)
        }
        Parsed::IcmpError(_) if hook.xdp => Verdict::pass(Reason::LeftToTc),
        Parsed::IcmpError(ip) => match icmp::translate::<F, P, T>(hook, packet, &ip, tables) {
            Ok(hop) => send(hook, packet, &hop, tables.ifindex()),
            Err(verdict) => verdict,
        },
        Parsed::Other(reason) => Verdict::pass(reason),
    };
    if verdict.reason != Reason::NotService {
        tables.count_reason(hook.index, verdict.reason);
    }
    verdict
}

#[inline(always)]
fn transport<F: ParseIp + AnswerIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Verdict {
    if work.view.ip.part != Part::Whole {
        if hook.xdp {
            return Verdict::pass(Reason::LeftToTc);
        }
        if let Err(reason) = fragment::complete::<F, T>(hook, &mut work.view, tables) {
            return Verdict::pass(reason);
        }
    }
    let decision = decide::<F, T>(hook, tables, work);
    let Work {
        view, flow, hop, ..
    } = &*work;
    let sent = match decision {
        Decision::Pass(reason) => return Verdict::pass(reason),
        Decision::Drop(reason) => return Verdict::drop(reason),
        Decision::Refuse if hook.xdp => return Verdict::pass(Reason::LeftToTc),
        Decision::Refuse if view.is_tcp() => {
            answer::reset::<F, P>(hook, packet, view, tables.ifindex())
        }
        Decision::Refuse => {
            answer::icmp_error::<F, P>(hook, packet, view, F::PORT_UNREACHABLE, tables.ifindex())
        }
        Decision::Translate => {
            let verdict = finish::<F, P, T>(hook, packet, view, flow, hop, tables);
            if verdict.action != Action::Slow {
                return verdict;
            }
            if view.ip.ttl <= 1 {
                return Verdict::drop(Reason::HopLimit);
            }
            if hook.xdp {
                return Verdict::pass(Reason::LeftToTc);
            }
            answer::icmp_error::<F, P>(hook, packet, view, F::too_big(hop.mtu), tables.ifindex())
        }
    };
    // The answer takes the packet's place; the packet itself counts as dropped.
    let reason = if decision == Decision::Refuse {
        Reason::Refused
    } else {
        Reason::TooBig
    };
    match sent {
        Some(verdict) => {
            tables.count_reason(hook.index, reason);
            verdict
        }
        None => Verdict::drop(reason),
    }
}

/// Edits and sends a packet of a known flow. [`Verdict::SLOW`], untouched: it may not be forwarded, since its
/// hop limit ends or it is too big.
#[inline(always)]
fn finish<F: Family, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
    hop: &Hop,
    tables: &T,
) -> Verdict {
    let forwarded = hop.route == Route::Forward;
    if forwarded && (view.ip.ttl <= 1 || is_too_big(packet, view, hop.mtu)) {
        return Verdict::SLOW;
    }
    // XDP has no segments in one frame, and the verifier no liking for the difference of its pointers.
    let bytes = if hook.xdp {
        view.ip.len
    } else {
        packet.frame_len() - L3 as u32
    };
    tables.count_packet(flow.backend, bytes, flow.is_reply());
    match rewrite::rewrite::<F, P>(packet, view, &flow.to, forwarded) {
        Some(()) => send(hook, packet, hop, tables.ifindex()),
        None => Verdict::drop(Reason::EditFailed),
    }
}

/// Is the packet, or each segment of it, larger than `mtu`?
#[inline(always)]
fn is_too_big<A, P: Packet>(packet: &P, view: &View<A>, mtu: u16) -> bool {
    if mtu == 0 {
        return false;
    }
    let gso = packet.gso_size();
    let len = if gso == 0 {
        view.ip.len
    } else {
        let header = if view.is_tcp() {
            match packet.load::<u16>(view.ip.l4 + 12).map(u16::to_ne_bytes) {
                Some([b, _]) => (b >> 4) as u32 * 4,
                None => 20,
            }
        } else {
            8
        };
        (view.ip.l4 - L3) as u32 + header + gso
    };
    len > mtu as u32
}

/// Sends an edited packet by a hop.
#[inline(always)]
fn send<P: Packet>(hook: Hook, packet: &mut P, hop: &Hop, here: u32) -> Verdict {
    if hop.route == Route::Stack {
        return Verdict::TRANSLATED;
    }
    if !hop.resolved {
        return Verdict::neighbour(hop.ifindex);
    }
    if packet.store(0, hop.macs).is_none() {
        return Verdict::drop(Reason::EditFailed);
    }
    if hop.route == Route::Receive {
        return Verdict::receive(hop.ifindex);
    }
    match (hop.ifindex == here, hook.dir) {
        (true, Dir::In) => Verdict::TRANSMIT,
        (true, Dir::Out) => Verdict::TRANSLATED,
        (false, _) => Verdict::redirect(hop.ifindex),
    }
}
