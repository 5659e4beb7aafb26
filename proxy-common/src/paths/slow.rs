//! The slow path: everything, for a packet that the fast path left. A straight line from the parsed packet to what is
//! sent in its place.

use crate::{
    abi::{Dir, Macs},
    edge::{
        Edge, admit,
        decision::{About, Answer, Decision, record},
        hook::Hook,
        verdict::Verdict,
        work::{Work, settle},
    },
    flow::{own, track},
    paths::{
        answer::{self, AnswerIp},
        decide::decide,
        fragment::{self, Known},
        icmp, send,
    },
    reason::{DropReason, PassReason},
    service::classify,
    tables::Tables,
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
    let edge = hook.edge;
    work.about = About::NOTHING;
    let decision = match look::<F, P, T>(edge, packet, tables, work) {
        Ok(()) if !edge.is_xdp() && work.is_error => error::<F, P, T>(edge, packet, tables, work),
        Ok(()) => transport::<F, T>(edge, tables, work),
        Err(reason) => Decision::Pass(reason),
    };
    settle(work);
    let (decision, verdict) = carry_out::<F, P, T>(edge, packet, tables, work, decision.at(edge));
    record(hook, tables, decision, &work.about);
    verdict
}

/// Looks at the packet: its headers, and what the stack would ask of it at this hook. `Err`: it is nothing to decide about.
#[inline(always)]
fn look<F: ParseIp, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Result<(), PassReason> {
    work.frame = match packet.macs() {
        Some(frame) => frame,
        None => Macs::NONE,
    };
    work.is_error = false;
    match parse::<F, P>(packet) {
        Parsed::Transport(view) => {
            work.view = view;
            work.largest = send::largest(Protocols::All, packet, &work.view);
        }
        Parsed::IcmpError(_) if edge.is_xdp() => return Err(PassReason::LeftToTc),
        Parsed::IcmpError(ip) => {
            work.view.ip = ip;
            work.is_error = true;
        }
        Parsed::Other(reason) => return Err(reason),
    }
    settle(work);
    if edge.dir == Dir::In {
        let Some(device) = tables.device(tables.ifindex()) else {
            return Err(PassReason::NoDevice);
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
    Ok(())
}

/// An ICMP error, about whatever packet. It is edited here, as what it quotes is part of it.
#[inline(always)]
fn error<F: ParseIp, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &mut P,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Decision {
    if !work.is_for_us {
        return Decision::Pass(PassReason::NotService);
    }
    match icmp::translate::<F, P, T>(edge, packet, tables, work) {
        Ok(()) => Decision::TRANSLATE,
        Err(decision) => decision,
    }
}

#[inline(always)]
fn transport<F: ParseIp, T: Tables<F>>(
    edge: Edge,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Decision {
    if work.view.ip.part != Part::Whole {
        if edge.is_xdp() {
            return Decision::HOLD;
        }
        match fragment::complete::<F, T>(edge, &mut work.view, tables) {
            Ok(Known::Ports) => {}
            Ok(_) if work.is_for_us => return Decision::HOLD,
            Ok(_) => return Decision::Pass(PassReason::OtherHost),
            Err(reason) => return Decision::Pass(reason),
        }
    }
    // The gate again: neither SCTP nor a packet with options or extensions has passed it.
    let Work { view, .. } = &*work;
    let to_service = classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto);
    if !to_service
        && !classify::may_be_from_backend::<F, T>(tables, &view.tuple)
        && !classify::may_open_to_backend::<F, T>(tables, view)
        && !own::may_leave_from_service::<F, T>(edge, tables, view)
    {
        return Decision::Pass(PassReason::NotService);
    }
    if !work.is_for_us {
        // A pod's answer to another at the same bridge comes by as well, and is no news.
        return Decision::Pass(if to_service {
            PassReason::OtherHost
        } else {
            PassReason::NotService
        });
    }
    if classify::may_open_to_backend::<F, T>(tables, &work.view) {
        track::make_way::<F, T>(edge, tables, work);
    }
    settle(work);
    decide::<F, T>(edge, tables, work)
}

/// Does what was decided; gives what became of it, where an edit fails, and the verdict.
#[inline(always)]
fn carry_out<F: ParseIp + AnswerIp, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &mut P,
    tables: &T,
    work: &Work<F::Addr>,
    decision: Decision,
) -> (Decision, Verdict) {
    let Work {
        view, flow, hop, ..
    } = work;
    let here = tables.ifindex();
    let done = match decision {
        Decision::Pass(reason) => return (decision, Verdict::pass(reason)),
        Decision::Drop(reason) => return (decision, Verdict::drop(reason)),
        Decision::Hold(_) => return (decision, Verdict::FRAGMENT),
        Decision::Translate(_) if work.is_error => send::send(edge, packet, hop, here),
        Decision::Translate(_) => {
            // A device without a link header has no neighbours to keep alive.
            if work.is_looked_up && hop.macs != Macs::NONE {
                tables.note_next_hop();
            }
            send::finish::<F, P, T>(edge, packet, view, flow, hop, tables)
        }
        // The answer takes the packet's place; where it cannot be made, the packet ends all the same.
        Decision::Answer(answer) => {
            let error = if answer == Answer::TooBig {
                F::too_big(hop.mtu)
            } else {
                F::PORT_UNREACHABLE
            };
            let sent = if answer != Answer::TooBig && view.is_tcp() {
                answer::reset::<F, P>(edge, packet, view, here)
            } else {
                answer::icmp_error::<F, P>(edge, packet, view, error, here)
            };
            return (decision, sent.unwrap_or(Verdict::drop(answer.reason())));
        }
    };
    match done {
        Some(verdict) => (decision, verdict),
        None => (
            Decision::Drop(DropReason::EditFailed),
            Verdict::drop(DropReason::EditFailed),
        ),
    }
}
