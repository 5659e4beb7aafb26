//! What a packet proves about its connection: that its sender knows what only the other end's packets tell.
//!
//! Each direction of a flow keeps one number, [`Flow::proof`]: the acknowledgement number that its sender sent last (TCP), or the
//! verification tag of its packets (SCTP). Who forges one end's packets without seeing the other's does not know it. While a flow is
//! pending, the number is what a packet of that direction is yet to show: the answer that the SYN's number is acknowledged, then the
//! client that the answer's is.
//!
//! The rule: what does not fit is translated, but changes nothing that the flow is.
//!
//! [`Flow::proof`]: crate::abi::Flow::proof

use crate::parse::View;

/// How far a number that counts bytes may have gone on past the one that was seen last, in bytes: what is on its way at once in a
/// window that was not scaled (RFC 9293 section 3.1). One guess in 65,536 meets it.
const WINDOW: u32 = 1 << 16;

/// The same for a FIN, behind as much as fills a path's window. It only notes that one end has sent its last.
const FIN_WINDOW: u32 = 1 << 22;

/// What a SYN may carry that its answer acknowledges along with it (TCP Fast Open, RFC 7413): less than a segment.
const SYN_DATA: u32 = 1 << 11;

/// No number yet, or an entry that was rebuilt without one.
pub const NONE: u32 = 0;

/// Is `number` at most `span` past `base`?
#[inline(always)]
const fn follows(number: u32, base: u32, span: u32) -> bool {
    number.wrapping_sub(base) < span
}

/// Is this the answer to the packet that opened the flow? `expected`: what it must show.
#[inline(always)]
pub fn answers<A>(view: &View<A>, expected: u32) -> bool {
    if !view.is_connected() {
        return true;
    }
    let span = if view.is_tcp() { SYN_DATA } else { 1 };
    view.accepts() && follows(view.shows, expected, span)
}

/// Does this packet of the client show that it got that answer?
#[inline(always)]
pub fn confirms<A>(view: &View<A>, expected: u32) -> bool {
    if !view.is_connected() {
        return true;
    }
    if view.is_tcp() {
        view.acknowledges() && follows(view.shows, expected, WINDOW)
    } else {
        view.shows == expected
    }
}

/// Does a packet that ends a connection, or a direction of it, fit? `own`: the number of its direction; `other`: of the other one;
/// `answered`: whether the flow has had an answer.
///
/// A RST must lie where the other end would take it or answer it with a challenge (RFC 5961 section 3.2), after which the flow goes on
/// ([`crate::track::go_on_after_reset`]); or answer a SYN by its number (RFC 9293 section 3.10.7.3). An SCTP packet has the tag of its direction,
/// or reflects that of the other (RFC 9260 section 8.5.1).
#[inline(always)]
pub fn ends<A>(view: &View<A>, own: u32, other: u32, answered: bool) -> bool {
    if view.is_sctp() {
        return view.shows != NONE && (view.shows == own || view.shows == other);
    }
    if view.resets() {
        let refuses = !answered && view.acknowledges() && own != NONE && view.shows == own;
        return refuses || (other != NONE && follows(view.claims, other, WINDOW));
    }
    other != NONE && follows(view.claims.wrapping_add(WINDOW), other, FIN_WINDOW)
}

/// Does this packet tell what its sender knows by now?
#[inline(always)]
pub fn is_shown<A>(view: &View<A>) -> bool {
    use crate::parse::tcp;
    view.is_tcp() && view.flags & (tcp::ACK | tcp::SYN | tcp::RST) == tcp::ACK
}
