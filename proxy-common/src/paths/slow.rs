//! The slow path: everything, for a packet that the fast path left. A straight line from the parsed packet to what is
//! sent in its place.

use crate::{
    abi::Dir,
    edge::{
        admit,
        hook::Hook,
        verdict::Verdict,
        work::{Work, settle},
    },
    flow::{own, track},
    paths::{
        answer::{self, AnswerIp},
        decide::{Decision, decide},
        fragment::{self, Known},
        icmp, send,
    },
    reason::Reason,
    service::classify,
    tables::{Meters, Tables},
    wire::{
        packet::Packet,
        parse::{ParseIp, Parsed, Part, parse},
        rewrite::Protocols,
    },
};

/// Runs the slow path of one family.
#[inline(always)]
pub fn slow<F: ParseIp + AnswerIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Verdict {
    if let Some(frame) = packet.load(0) {
        work.frame = frame;
    }
    work.is_error = false;
    match parse::<F, P>(packet) {
        Parsed::Transport(view) => {
            work.view = view;
            work.largest = send::largest(Protocols::All, packet, &work.view);
        }
        Parsed::IcmpError(_) if hook.xdp => return counted(hook, tables, Reason::LeftToTc),
        Parsed::IcmpError(ip) => {
            work.view.ip = ip;
            work.is_error = true;
        }
        Parsed::Other(reason) => return counted(hook, tables, reason),
    }
    settle(work);
    if hook.dir == Dir::In {
        let Some(device) = tables.device(tables.ifindex()) else {
            return counted(hook, tables, Reason::NoDevice);
        };
        // Asked once, for whichever way the packet takes from here: it is the verifier that would pay for several places.
        work.is_for_us = admit::is_addressed(packet, work.frame, device);
        work.above = device.above;
        work.is_admitted =
            admit::admits::<F, T>(tables, device, &work.view.ip.src, &work.view.ip.dst);
    } else {
        work.is_for_us = true;
    }
    // The verifier does not go through all of the above for each of what follows.
    settle(work);
    let verdict = if !hook.xdp && work.is_error {
        error::<F, P, T>(hook, packet, tables, work)
    } else {
        transport::<F, P, T>(hook, packet, tables, work)
    };
    if verdict.reason != Reason::NotService {
        tables.count_reason(hook.index, verdict.reason);
    }
    verdict
}

/// The end of a packet's way before anything was asked of it.
#[inline(always)]
fn counted<T: Meters>(hook: Hook, tables: &T, reason: Reason) -> Verdict {
    if reason != Reason::NotService {
        tables.count_reason(hook.index, reason);
    }
    Verdict::pass(reason)
}

/// An ICMP error, about whatever packet.
#[inline(always)]
fn error<F: ParseIp, P: Packet, T: Tables<F>>(
    hook: Hook,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Verdict {
    if !work.is_for_us {
        return Verdict::pass(Reason::NotService);
    }
    match icmp::translate::<F, P, T>(hook, packet, tables, work) {
        Ok(()) => send::send(hook, packet, &work.hop, tables.ifindex()),
        Err(verdict) => verdict,
    }
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
        match fragment::complete::<F, T>(hook, &mut work.view, tables) {
            Ok(Known::Ports) => {}
            Ok(_) if work.is_for_us => return Verdict::FRAGMENT,
            Ok(_) => return Verdict::pass(Reason::OtherHost),
            Err(reason) => return Verdict::pass(reason),
        }
    }
    // The gate again: neither SCTP nor a packet with options or extensions has passed it.
    let Work { view, .. } = &*work;
    let to_service = classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto);
    if !to_service
        && !classify::may_be_from_backend::<F, T>(tables, &view.tuple)
        && !classify::may_open_to_backend::<F, T>(tables, view)
        && !own::may_leave_from_service::<F, T>(hook, tables, view)
    {
        return Verdict::pass(Reason::NotService);
    }
    if !work.is_for_us {
        // A pod's answer to another at the same bridge comes by as well, and is no news.
        return Verdict::pass(if to_service {
            Reason::OtherHost
        } else {
            Reason::NotService
        });
    }
    if classify::may_open_to_backend::<F, T>(tables, &work.view) {
        track::make_way::<F, T>(hook, tables, work);
    }
    settle(work);
    let decision = decide::<F, T>(hook, tables, work);
    settle(work);
    let Work {
        view, flow, hop, ..
    } = &*work;
    // An answer takes the packet's place; the packet itself counts as dropped.
    let (reason, error) = match decision {
        Decision::Pass(reason) => return Verdict::pass(reason),
        Decision::Drop(reason) => return Verdict::drop(reason),
        Decision::Translate => {
            if work.is_looked_up {
                tables.note_next_hop();
            }
            return send::finish::<F, P, T>(Protocols::All, hook, packet, view, flow, hop, tables);
        }
        Decision::Refuse => (Reason::Refused, F::PORT_UNREACHABLE),
        Decision::Reset => (Reason::Stranger, F::PORT_UNREACHABLE),
        Decision::TooBig => (Reason::TooBig, F::too_big(hop.mtu)),
    };
    if hook.xdp {
        return Verdict::pass(Reason::LeftToTc);
    }
    let sent = if reason != Reason::TooBig && view.is_tcp() {
        answer::reset::<F, P>(hook, packet, view, tables.ifindex())
    } else {
        answer::icmp_error::<F, P>(hook, packet, view, error, tables.ifindex())
    };
    match sent {
        Some(verdict) => {
            tables.count_reason(hook.index, reason);
            verdict
        }
        None => Verdict::drop(reason),
    }
}
