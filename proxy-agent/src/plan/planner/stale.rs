//! What nothing desired claims makes room for what is desired, in the same plan.
//!
//! In: a service that finds no room while the tables still hold what an earlier process left. Out: the writes that take that away. The
//! one rule: nothing is used again before every program that may have seen it has ended. What is let go otherwise rests for that
//! time; here the writes wait.
//!
//! Nothing of it outlasts the first sync. What rests is charged to a namespace, and here none is known: what a namespace had
//! before the restart would rest beside the whole share that it may have after it.

use std::{mem, sync::Arc, time::Instant};

use super::{Change, Planner};
use crate::plan::{FrontendAt, Op, batch::Batch};

impl Planner {
    /// Do the tables hold anything that nothing has claimed yet?
    pub(super) fn has_stale(&self) -> bool {
        self.tables.ledger.has_any(&self.nobody)
    }

    /// Leaves to a service what it has in the image, as it stands.
    pub(super) fn claim_service(&mut self, (name, desired): &Change) {
        for desired in desired {
            let ports = self.services.get(name);
            let is_known =
                ports.is_some_and(|ports| ports.iter().any(|(key, _)| **key == desired.key));
            if !is_known && let Some(placed) = self.claim(desired) {
                let key = Arc::new(desired.key.clone());
                self.services
                    .entry(name.clone())
                    .or_default()
                    .push((key, placed));
            }
        }
    }

    /// Takes away what nothing has claimed. What was planned before it in `batch` is written after it.
    pub(super) fn make_room(&mut self, now: Instant, batch: &Batch) -> Vec<Op> {
        let nobody = Arc::clone(&self.nobody);
        let mut stale = Batch::default();
        let going_with_others = mem::take(&mut self.gone_ranges);
        for placed in mem::take(&mut self.unclaimed).into_values() {
            // These lead to others once the batch is written; until then they would lead to nothing.
            for (at, _) in &placed.frontends {
                if batch.frontends.contains_key(at) {
                    stale.frontends.insert(*at, None);
                }
            }
            self.remove(now, &mut stale, &nobody, &placed);
        }
        for (addr, is_refused) in self.addresses.take_touched() {
            let at = FrontendAt::WholeAddress(addr);
            if !is_refused {
                if self.tables.drop_frontend(at) {
                    stale.frontends.insert(at, None);
                }
            } else if self.tables.frontend(at).is_none() {
                // Written with the batch, like all that is new.
                self.addresses.touch(addr);
            }
        }
        let gone = mem::replace(&mut self.gone_ranges, going_with_others);
        self.give_back_ranges(gone);
        let mut ops = stale.into_ops(Vec::new());
        ops.extend(self.let_stale_go());
        ops
    }

    /// Lets what nothing has claimed be used again: the writes for that, which come after those that take it away.
    pub(super) fn let_stale_go(&mut self) -> Vec<Op> {
        let nobody = Arc::clone(&self.nobody);
        let (closed, free) = self.departures.let_go(&nobody);
        for free in free {
            self.tables.give_back(&nobody, free);
            self.has_freed = true;
        }
        let mut ops = vec![Op::AwaitPrograms];
        ops.extend(closed);
        ops
    }
}
