//! Closed connections leave their table.
//!
//! What has ended is remembered for a while ([`Config::tcp_closed`]), for packets that come late. Then its place is free for others. Each CPU has
//! a queue of the connections that ended there: who ends one looks at the two oldest, and removes them if their time is over. Where a queue is
//! full, its oldest goes early. So closed connections never have more of the table than the queues of all CPUs have places, which is half of it,
//! however fast they come, and nobody but the programs is needed.
//!
//! A connection that is forgotten in the queue (its programs were replaced) goes with those that were idle for too long: the agent removes these.

use crate::{
    abi::{Config, Jiffies},
    addr::Family,
    edge::work::{Work, opaque},
    flow::track,
    tables::{Flows, Node, Queues, Services, Table, count_on},
};

/// How many leave when one comes: more than one, so that the queue is not for ever as long as it once was.
const LEAVE: usize = 2;

/// In how many queues one looks for room.
const LOOK: usize = 4;

/// Queues the connection of this packet, which has ended it; takes out those whose time is over.
#[inline(always)]
pub fn queue<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    config: &Config,
    now: Jiffies,
    work: &mut Work<F::Addr>,
) {
    let Queues { own, room, .. } = tables.queues();
    let mut left = 0;
    while left < LEAVE {
        left = opaque(left) + 1;
        take_oldest::<F, T>(tables, own, work, |many, since| {
            many >= room || now.since(since) >= config.tcp_closed
        });
    }
    let Some(ends) = tables.closed_ends(own) else {
        return;
    };
    let Some(place) = tables.closed(own * room + ends.next.get() % room) else {
        return;
    };
    place.set(&work.key, now);
    count_on(&ends.next);
}

/// Removes the connection that was closed first, since there is no room for one that is open: of this CPU's queue, or of the next ones'.
#[inline(always)]
pub fn make_room<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    work: &mut Work<F::Addr>,
) {
    let Queues { own, count, .. } = tables.queues();
    let mut queue = own;
    let mut looked = 0;
    while looked < LOOK {
        looked = opaque(looked) + 1;
        if take_oldest::<F, T>(tables, queue, work, |_, _| true) {
            return;
        }
        let Some(ends) = tables.closed_ends(own) else {
            return;
        };
        count_on(&ends.other);
        queue = ends.other.get() % count;
    }
}

/// Removes the connection of a queue that was closed first, if `may_go` says so, which is told how many there are and since when this one
/// is. Tells whether one was removed.
///
/// Where two CPUs take from one queue, both may take the same, or one may be left out: the agent removes that.
#[inline(always)]
fn take_oldest<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    queue: u32,
    work: &mut Work<F::Addr>,
    may_go: impl FnOnce(u32, Jiffies) -> bool,
) -> bool {
    let Some(ends) = tables.closed_ends(queue) else {
        return false;
    };
    let many = ends.next.get().wrapping_sub(ends.oldest.get());
    if many == 0 {
        return false;
    }
    let room = tables.queues().room;
    let Some(oldest) = tables.closed(queue * room + ends.oldest.get() % room) else {
        return false;
    };
    let oldest = oldest.peek();
    if !may_go(many, oldest.since) {
        return false;
    }
    count_on(&ends.oldest);
    work.other_key = oldest.key;
    let Some(cell) = tables.flow(Table::Connections, &work.other_key) else {
        return false;
    };
    work.other = cell.get();
    // It may have gone on after a RST that was not believed, or another connection has its tuple by now.
    let is_over = work.other.is_done();
    if is_over {
        track::remove_other::<F, T>(tables, Table::Connections, work);
    }
    is_over
}
