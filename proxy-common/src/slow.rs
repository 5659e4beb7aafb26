//! The slow path: everything, for a packet that the fast path left. A straight line from the parsed packet to what is
//! sent in its place.

use crate::{
    answer::{self, AnswerIp},
    classify,
    decide::{Decision, decide},
    fragment,
    hook::Hook,
    icmp,
    packet::Packet,
    parse::{ParseIp, Parsed, Part, parse},
    reason::Reason,
    rewrite::Protocols,
    send,
    tables::Tables,
    track,
    verdict::{Action, Verdict},
    work::Work,
};

/// Runs the slow path of one family.
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
            Ok(hop) => send::send(hook, packet, &hop, tables.ifindex()),
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
    // The gate again: neither SCTP nor a packet with options or extensions has passed it.
    let Work { view, .. } = &*work;
    if !classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto)
        && !classify::may_be_from_backend::<F, T>(tables, &view.tuple)
        && !classify::may_open_to_backend::<F, T>(tables, view)
    {
        return Verdict::pass(Reason::NotService);
    }
    if classify::may_open_to_backend::<F, T>(tables, view) {
        track::make_way::<F, T>(hook, tables, work);
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
            let verdict =
                send::finish::<F, P, T>(Protocols::All, hook, packet, view, flow, hop, tables);
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
