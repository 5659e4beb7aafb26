//! One source's share of the room for new flows, so that it does not crowd out others.
//!
//! Counted are a source's flows that have not been answered (TCP: confirmed) yet, in a window of time: as long as such a flow holds its reply
//! tuple ([`Config::unanswered`]). A source is a pod's address, and outside an IPv4 address or
//! the /64 of an IPv6 address, which one subscriber has (RFC 6177). The rule: who
//! is over its share begins no flow until the window ends; flows that it has go on.

use crate::{
    abi::{Config, Jiffies, Share},
    addr::{Addr, Family},
    edge::Edge,
    tables::Flows,
    wire::parse::View,
};

/// Under what a client is counted that is seen at this hook.
#[inline(always)]
fn source<A: Addr>(edge: Edge, client: &A) -> A {
    if edge.is_workload() {
        *client
    } else {
        client.network()
    }
}

/// May this client begin another flow? Counts it.
#[inline(always)]
pub fn admits<F: Family, T: Flows<F>>(
    edge: Edge,
    tables: &T,
    config: &Config,
    now: Jiffies,
    client: &F::Addr,
) -> bool {
    if config.share == 0 {
        return true;
    }
    let source = source(edge, client);
    let Some(cell) = tables.share(&source) else {
        // Without room it is not counted.
        tables.put_share(
            &source,
            &Share {
                since: now,
                open: 1,
            },
        );
        return true;
    };
    let share = cell.get();
    if now.since(share.since) >= config.unanswered {
        cell.set(Share {
            since: now,
            open: 1,
        });
        return true;
    }
    if share.open >= config.share {
        return false;
    }
    cell.set(Share {
        open: share.open + 1,
        ..share
    });
    true
}

/// A flow of this client counts no more. `client`: as the packets of the flow show it where they are not rewritten yet.
#[inline(always)]
pub fn release<F: Family, T: Flows<F>>(edge: Edge, tables: &T, client: &F::Addr) {
    if let Some(cell) = tables.share(&source(edge, client)) {
        let share = cell.get();
        cell.set(Share {
            open: share.open.saturating_sub(1),
            ..share
        });
    }
}

/// Is a flow done with its share as soon as it is answered? One of a protocol without connections may never go on.
#[inline(always)]
pub fn ends_with_answer<A>(view: &View<A>) -> bool {
    !view.is_connected()
}
