//! The slow path: everything, for a packet that the fast path left. A straight line from the parsed packet to what is
//! sent in its place.

use crate::{
    abi::{Dir, Macs},
    admit,
    answer::{self, AnswerIp},
    classify,
    decide::{Decision, decide},
    fragment::{self, Known},
    hook::Hook,
    icmp, own,
    packet::Packet,
    parse::{ParseIp, Parsed, Part, parse},
    reason::Reason,
    rewrite::Protocols,
    send,
    tables::{Shared, Tables},
    track,
    verdict::Verdict,
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
    if let Some(frame) = packet.load(0) {
        work.frame = frame;
    }
    let verdict = match parse::<F, P>(packet) {
        Parsed::Transport(view) => {
            work.view = view;
            work.largest = send::largest(Protocols::All, packet, &work.view);
            transport::<F, P, T>(hook, packet, tables, work)
        }
        Parsed::IcmpError(_) if hook.xdp => Verdict::pass(Reason::LeftToTc),
        Parsed::IcmpError(_) if !is_for_us(hook, packet, tables, work.frame) => {
            Verdict::pass(Reason::NotService)
        }
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

/// Is a frame that comes in addressed to the device at the hook?
#[inline(always)]
fn is_for_us<P: Packet, T: Shared>(hook: Hook, packet: &P, tables: &T, frame: Macs) -> bool {
    if hook.dir == Dir::Out {
        return true;
    }
    match tables.device(tables.ifindex()) {
        Some(device) => admit::is_addressed(packet, frame, device),
        None => false,
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
            Ok(_) if is_for_us(hook, packet, tables, work.frame) => return Verdict::FRAGMENT,
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
    if !is_for_us(hook, packet, tables, work.frame) {
        // A pod's answer to another at the same bridge comes by as well, and is no news.
        return Verdict::pass(if to_service {
            Reason::OtherHost
        } else {
            Reason::NotService
        });
    }
    if hook.dir == Dir::In {
        let Some(device) = tables.device(tables.ifindex()) else {
            return Verdict::pass(Reason::NoDevice);
        };
        // Asked once, for whichever way the packet takes from here: it is the verifier that would pay for several places.
        work.above = device.above;
        work.is_admitted = admit::admits::<F, T>(tables, device, &work.view.tuple);
    }
    if classify::may_open_to_backend::<F, T>(tables, &work.view) {
        track::make_way::<F, T>(hook, tables, work);
    }
    let decision = decide::<F, T>(hook, tables, work);
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
