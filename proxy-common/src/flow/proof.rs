//! What a packet proves about its connection: that its sender knows what only the other end's packets tell.
//!
//! Each direction of a flow keeps one number, [`Flow::proof`], 16 bits of what its sender showed last: the upper half of TCP's
//! acknowledgement number, which changes once in 64 KiB, or the two halves of SCTP's verification tag in one. Who forges one end's packets
//! without seeing the other's does not know it; one guess in 32,768 meets it. While a flow is pending, the number is what a packet of that
//! direction is yet to show: the answer that the SYN's number is acknowledged, then the client that the answer's is. An entry of an older agent,
//! and one that was rebuilt, has none at first.
//!
//! The rule: what does not fit is translated, but changes nothing that the flow is.
//!
//! [`Flow::proof`]: crate::abi::Flow::proof

use crate::wire::parse::{View, tcp};

/// No number yet, which nothing fits. [`kept`] gives 1 in its place.
pub const NONE: u16 = 0;

/// How far behind the last acknowledgement a FIN may lie, in units of 64 KiB: as much as fills a path's window. It only notes that one end
/// has sent its last.
const FIN_SPAN: u16 = 64;

/// How far an acknowledgement may go beyond the one before it, in units of 64 KiB: more than one acknowledges at once.
const ACK_SPAN: u16 = 16;

/// What a flow keeps of a number.
#[inline(always)]
const fn kept(is_tcp: bool, number: u32) -> u16 {
    let upper = (number >> 16) as u16;
    let kept = if is_tcp { upper } else { upper ^ number as u16 };
    kept + (kept == NONE) as u16
}

/// What the packet shows.
#[inline(always)]
pub fn shown<A>(view: &View<A>) -> u16 {
    kept(view.is_tcp(), view.shows)
}

/// What an answer to the packet has to show.
#[inline(always)]
pub fn claimed<A>(view: &View<A>) -> u16 {
    kept(view.is_tcp(), view.claims)
}

/// Does `number` meet `expected`? Of numbers that count bytes, also with what has been sent since: 64 to 128 KiB, more than a window that is
/// not scaled (RFC 9293 section 3.1).
#[inline(always)]
fn meets<A>(view: &View<A>, number: u16, expected: u16) -> bool {
    number == expected || (view.is_tcp() && number.wrapping_sub(expected) == 1)
}

/// Is this the answer to the packet that opened the flow? `expected`: what it must show.
#[inline(always)]
pub fn answers<A>(view: &View<A>, expected: u16) -> bool {
    !view.is_connected() || (view.accepts() && meets(view, shown(view), expected))
}

/// Does this packet of the client show that it got that answer?
#[inline(always)]
pub fn confirms<A>(view: &View<A>, expected: u16) -> bool {
    if view.is_tcp() && !view.acknowledges() {
        return false;
    }
    !view.is_connected() || meets(view, shown(view), expected)
}

/// Does a packet that ends a connection, or a direction of it, fit? `own`: the number of its direction; `other`: of the other one;
/// `answered`: whether the flow has had an answer.
///
/// A RST must lie where the other end would take it or answer it with a challenge (RFC 5961 section 3.2), after which the flow goes on
/// ([`crate::flow::track::go_on_after_reset`]); or answer a SYN by its number (RFC 9293 section 3.10.7.3). An SCTP packet has the tag of its direction,
/// or reflects that of the other (RFC 9260 section 8.5.1).
#[inline(always)]
pub fn ends<A>(view: &View<A>, own: u16, other: u16, answered: bool) -> bool {
    if view.is_sctp() {
        let tag = shown(view);
        return tag != NONE && (tag == own || tag == other);
    }
    if view.resets() {
        let refuses = !answered && view.acknowledges() && own != NONE && shown(view) == own;
        return refuses || (other != NONE && meets(view, claimed(view), other));
    }
    other != NONE && claimed(view).wrapping_sub(other).wrapping_add(1) < FIN_SPAN
}

/// May a direction whose number is `known` have gone on to `shown`? Who knows neither number must not set one of them: the other end's
/// packets would then be held against his (RFC 5961 section 5).
#[inline(always)]
pub fn may_follow(known: u16, shown: u16) -> bool {
    known == NONE || shown.wrapping_sub(known) < ACK_SPAN
}

/// Does this packet tell what its sender knows by now?
#[inline(always)]
pub fn is_shown<A>(view: &View<A>) -> bool {
    view.is_tcp() && view.flags & (tcp::ACK | tcp::SYN | tcp::RST) == tcp::ACK
}
