//! What was decided about a packet, about which service and backend, and why: a value, which is recorded in one place when the packet's
//! way ends.
//!
//! In: a [`Decision`] and what it is [`About`]. Out: counters. Nothing else counts reasons, connections, refusals or drops.

use crate::{
    abi::{BackendId, ServiceId},
    edge::{Edge, hook::Hook},
    reason::{DropReason, PassReason, Reason},
    tables::Meters,
};

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// On to the next layer, untouched.
    Pass(PassReason),
    /// The packet ends here.
    Drop(DropReason),
    /// The packet ends here, and its sender is told.
    Answer(Answer),
    /// A fragment that has to wait for the first of its datagram, or the first one that others wait for.
    Hold(Whole),
    /// Rewrite it as its flow says and send it on by its hop.
    Translate(Whole),
}

/// What stands in a [`Decision`] that says no more. Without it the compiler moves the other variants' field through a register that was
/// never written, which the verifier refuses to see read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Whole {
    Yes = 0,
}

/// What the sender of a packet is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing is there: a reset, or "port unreachable".
    Refuse,
    /// There is no such connection: a reset.
    Reset,
    /// It is larger than the path takes.
    TooBig,
}

impl Answer {
    #[inline(always)]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Refuse => DropReason::Refused,
            Self::Reset => DropReason::Stranger,
            Self::TooBig => DropReason::TooBig,
        }
    }
}

impl Decision {
    pub const HOLD: Self = Self::Hold(Whole::Yes);
    pub const TRANSLATE: Self = Self::Translate(Whole::Yes);

    /// What is counted of it: why the packet is not translated, or that it is; `None` if it waits.
    #[inline(always)]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Pass(reason) => Some(reason.reason()),
            Self::Drop(reason) => Some(reason.reason()),
            Self::Answer(answer) => Some(answer.reason().reason()),
            Self::Translate(_) => Some(Reason::Translated),
            Self::Hold(_) => None,
        }
    }

    /// What an edge leaves of a decision. XDP gives no answers, and TC decides anew.
    #[inline(always)]
    pub const fn at(self, edge: Edge) -> Self {
        match self {
            Self::Answer(_) | Self::Hold(_) if edge.is_xdp() => Self::Pass(PassReason::LeftToTc),
            decision => decision,
        }
    }
}

/// Which service and backend a decision is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct About {
    /// Its id; [`ServiceId::NONE`] where none is known.
    pub service: ServiceId,
    /// Its id; [`BackendId::NONE`] where none was chosen.
    pub backend: BackendId,
    /// Does the packet begin a flow?
    pub is_new: bool,
}

impl About {
    pub const NOTHING: Self = Self {
        service: ServiceId::NONE,
        backend: BackendId::NONE,
        is_new: false,
    };
}

/// Counts what was decided.
#[inline(always)]
pub fn record<T: Meters>(hook: Hook, tables: &T, decision: Decision, about: &About) {
    // Traffic of no service is most of the traffic, and is not counted.
    if let Some(reason) = decision.reason()
        && reason != Reason::NotService
    {
        tables.count_reason(hook.index, reason);
    }
    match decision {
        Decision::Translate(_) if about.is_new => {
            tables.count_connection(about.service, about.backend);
        }
        Decision::Answer(Answer::Refuse) if about.service != ServiceId::NONE => {
            tables.count_refused(about.service);
        }
        Decision::Drop(DropReason::Held) => tables.count_held(about.service),
        Decision::Drop(_) if about.service != ServiceId::NONE => {
            tables.count_dropped(about.service)
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdp_leaves_what_it_cannot_do_to_tc() {
        let left = Decision::Pass(PassReason::LeftToTc);
        for (decision, in_xdp) in [
            (Decision::Answer(Answer::Refuse), left),
            (Decision::Answer(Answer::TooBig), left),
            (Decision::HOLD, left),
            (Decision::TRANSLATE, Decision::TRANSLATE),
            (
                Decision::Drop(DropReason::NoPort),
                Decision::Drop(DropReason::NoPort),
            ),
        ] {
            assert_eq!(decision.at(Hook::XDP_UPLINK.edge), in_xdp, "{decision:?}");
            assert_eq!(decision.at(Hook::TC_UPLINK_IN.edge), decision);
        }
    }
}
