//! What is to become of a packet, as a value, until the hook's last line.

use crate::{
    abi::IfIndex,
    reason::{DropReason, PassReason, Reason},
};

/// The end of the way. The packet has been edited by then, or deliberately not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// On to the next layer, untouched.
    Pass,
    /// On to the next layer, translated.
    Translated,
    /// Undecided: the fast path leaves it to the slow one. Nothing has been touched.
    Slow,
    /// Dropped.
    Drop,
    /// Out by the device that it came in by; the Ethernet header is ready.
    Transmit,
    /// Out by another device; the Ethernet header is ready.
    Redirect,
    /// Out by a device; the kernel finds the next hop and writes the Ethernet header.
    Neighbour,
    /// A fragment that has to wait for the first of its datagram, or the first one that others wait for.
    Fragment,
    /// Received again by a device; the Ethernet header is ready.
    Receive,
}

impl Action {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Pass,
        Self::Translated,
        Self::Slow,
        Self::Drop,
        Self::Transmit,
        Self::Redirect,
        Self::Neighbour,
        Self::Fragment,
        Self::Receive,
    ];
}

/// An action and what belongs to it.
///
/// A struct, not an enum with fields: all of it is always initialised. For an enum the compiler moves the unused
/// fields of a variant through uninitialised registers, which the verifier refuses to see read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub action: Action,
    /// Why, for [`Action::Pass`] and [`Action::Drop`].
    pub reason: Reason,
    /// The device, for [`Action::Redirect`], [`Action::Neighbour`] and [`Action::Receive`].
    pub ifindex: IfIndex,
}

impl Verdict {
    pub const TRANSLATED: Self = Self::of(Action::Translated, IfIndex::NONE);
    pub const SLOW: Self = Self::of(Action::Slow, IfIndex::NONE);
    pub const FRAGMENT: Self = Self::of(Action::Fragment, IfIndex::NONE);
    pub const TRANSMIT: Self = Self::of(Action::Transmit, IfIndex::NONE);

    #[inline(always)]
    const fn of(action: Action, ifindex: IfIndex) -> Self {
        Self {
            action,
            reason: Reason::NotService,
            ifindex,
        }
    }

    #[inline(always)]
    pub const fn pass(reason: PassReason) -> Self {
        Self {
            action: Action::Pass,
            reason: reason.reason(),
            ifindex: IfIndex::NONE,
        }
    }

    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self {
            action: Action::Drop,
            reason: reason.reason(),
            ifindex: IfIndex::NONE,
        }
    }

    #[inline(always)]
    pub const fn redirect(ifindex: IfIndex) -> Self {
        Self::of(Action::Redirect, ifindex)
    }

    #[inline(always)]
    pub const fn neighbour(ifindex: IfIndex) -> Self {
        Self::of(Action::Neighbour, ifindex)
    }

    #[inline(always)]
    pub const fn receive(ifindex: IfIndex) -> Self {
        Self::of(Action::Receive, ifindex)
    }
}
