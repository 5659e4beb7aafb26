//! Why a packet was let through untouched, or dropped; or that it was translated. One list for all hooks; each has a counter per
//! hook.
//!
//! Which outcome a reason belongs to is part of its type where it is given: [`PassReason`], [`DropReason`].

mod words;

pub use self::words::Words;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What became of a packet, and why it was not simply translated.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];
            /// Number of reasons.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The name that the CLI and the metrics show.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$name => $text),+ }
            }
        }
    };
}

reasons! {
    /// Traffic of no service. Not counted: it is most of the traffic.
    NotService = "not-service",
    /// The IP header is malformed or cut off.
    BadHeader = "bad-header",
    /// An IPv6 extension header that is not understood, or too many of them.
    Extension = "extension-header",
    /// A later fragment whose first one has not been seen.
    FragmentUnknown = "fragment-unknown",
    /// A TCP segment (SCTP packet) in the middle of a connection that is not known here.
    MidFlow = "mid-flow",
    /// XDP leaves it to TC: a fragment, an ICMP error, an answer to give.
    LeftToTc = "left-to-tc",
    /// XDP leaves it to TC: it goes out by another device, or its next hop is not resolved.
    OtherDevice = "other-device",
    /// The kernel has no route to the backend or back to the client.
    NoRoute = "no-route",
    /// The egress device has no usable source address in the device table.
    NoDevice = "no-device",
    /// Dropped: the service has no endpoint; answered by a reset or an unreachable.
    Refused = "refused",
    /// Dropped: the traffic policy is Local and no endpoint is on this node.
    NoLocalEndpoint = "no-local-endpoint",
    /// Dropped: the service has no endpoint, and its first packets wait for one.
    Held = "held",
    /// Dropped: the source is outside `loadBalancerSourceRanges`.
    SourceRange = "source-range",
    /// Dropped: larger than the path takes; answered by an ICMP error with the MTU.
    TooBig = "too-big",
    /// Dropped: the hop limit ended here.
    HopLimit = "hop-limit",
    /// Dropped: no free port for the reply tuple.
    NoPort = "no-port",
    /// Dropped: a flow could not be stored.
    TableFull = "table-full",
    /// Dropped: the packet could not be edited as decided; a fragment of an SCTP packet whose ports would change.
    EditFailed = "edit-failed",
    /// The frame is addressed to another station than this device.
    OtherHost = "other-host",
    /// The source is no single host's, or this node's own, so that nobody there could be answered.
    Martian = "martian-source",
    /// Dropped: the device does not take this source, by its `rp_filter` or `--source-check`.
    SourceCheck = "source-check",
    /// Dropped: the source has its share of new flows that wait for an answer.
    SourceShare = "source-share",
    /// Dropped: a segment of no known connection to a service address that is not the node's; answered by a reset.
    Stranger = "stranger",
    /// The configuration is missing: the agent has not filled the maps.
    NotConfigured = "not-configured",
    /// Translated by the slow path: the first packets of a connection, those that end it, and what has no plain headers. The fast
    /// path counts what it translates by backend alone: one more look-up of a counter would cost it more than a nanosecond
    /// on kernels that do not inline it (before 6.10).
    Translated = "translated",
}

/// Some of the reasons, as a type of their own: what has another outcome cannot be given one of them.
macro_rules! subset {
    ($(#[doc = $doc:literal])+ $subset:ident: $($name:ident,)+) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $subset { $($name = Reason::$name as u8,)+ }

        impl $subset {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            #[inline(always)]
            pub const fn reason(self) -> Reason {
                match self { $(Self::$name => Reason::$name),+ }
            }
        }
    };
}

subset! {
    /// Why a packet goes on to the next layer untouched.
    PassReason:
    NotService,
    BadHeader,
    Extension,
    FragmentUnknown,
    MidFlow,
    LeftToTc,
    OtherDevice,
    NoRoute,
    NoDevice,
    OtherHost,
    Martian,
    NotConfigured,
}

subset! {
    /// Why a packet ends here, answered or not.
    DropReason:
    Refused,
    NoLocalEndpoint,
    Held,
    SourceRange,
    TooBig,
    HopLimit,
    NoPort,
    SourceCheck,
    SourceShare,
    Stranger,
    TableFull,
    EditFailed,
}

/// What a hook did with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It ended here.
    Drop,
    /// On to the next layer, untouched.
    Pass,
    /// On its way, translated.
    Translate,
}

impl Outcome {
    /// The name that the CLI shows.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Translate => "translate",
        }
    }
}

impl Reason {
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Translated => Outcome::Translate,
            reason if reason.is_drop() => Outcome::Drop,
            _ => Outcome::Pass,
        }
    }

    /// Does the packet end here? Otherwise it goes on to the next layer, untouched.
    pub fn is_drop(self) -> bool {
        DropReason::ALL.iter().any(|drop| drop.reason() == self)
    }
}

#[cfg(test)]
mod tests {
    use super::{DropReason, PassReason, Reason};

    #[test]
    fn numbers_are_indices() {
        for (i, r) in Reason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
        }
    }

    #[test]
    fn each_reason_is_of_one_outcome() {
        let passes = PassReason::ALL.iter().map(|r| r.reason());
        let drops = DropReason::ALL.iter().map(|r| r.reason());
        let mut both: Vec<Reason> = passes.chain(drops).chain([Reason::Translated]).collect();
        both.sort();
        assert_eq!(both, Reason::ALL);
        for reason in Reason::ALL {
            let is_drop = DropReason::ALL.iter().any(|r| r.reason() == *reason);
            assert_eq!(reason.is_drop(), is_drop, "{reason:?}");
        }
    }
}
