//! The difference between a service port as it stands and as it is to be, as writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use proxy_common::abi::{FrontendKind, FrontendRef};

use super::{Plan, Planner, Refused};
use crate::{
    model::{Cidr, DesiredService},
    plan::{
        FrontendAt, Op,
        batch::Batch,
        placed::{self, Placed},
    },
};

impl Planner {
    /// Puts the difference of `before` and `placed` into the batch.
    pub(super) fn commit(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        desired: &DesiredService,
        before: Option<&Placed>,
        placed: &mut Placed,
    ) {
        let blank = Placed::new(placed.id);
        let is_new = before.is_none();
        if is_new {
            batch.prepare.push(Op::ClearServiceCount { id: placed.id });
        }
        let before = before.unwrap_or(&blank);
        for (socket, &(id, entry)) in &placed.backends {
            let old = before.backends.get(socket);
            if old.is_none() {
                self.gate.open_backend(*socket);
                if entry.generation > 1 {
                    batch.prepare.push(Op::ClearBackendCount { id });
                }
            }
            if old != Some(&(id, entry)) {
                batch.prepare.push(Op::Backend { id, entry });
            }
        }
        for (extent, backends) in &placed.extents {
            if !before.extents.iter().any(|(old, _)| old == extent) {
                batch.prepare.push(Op::Slots {
                    base: extent.base,
                    backends: backends.clone(),
                });
            }
        }
        if is_new || placed.value != before.value {
            batch.services.push(Op::Service {
                id: placed.id,
                value: placed.value,
            });
        }
        let frontends = placed::frontends(desired);
        placed.source_ranges = desired.source_ranges.clone();
        let ranges = placed::ranges(&placed.source_ranges, &frontends, &self.addresses.node);
        diff_ranges(batch, placed, ranges);
        self.diff_frontends(batch, placed, frontends);
        self.depart(now, before, placed);
    }

    fn diff_frontends(
        &mut self,
        batch: &mut Batch,
        placed: &mut Placed,
        frontends: BTreeMap<FrontendAt, FrontendKind>,
    ) {
        for (at, kind) in &placed.frontends {
            self.addresses.remove(*at, *kind);
            if !frontends.contains_key(at) {
                self.drop_frontend(batch, *at, placed.id);
            }
        }
        for (at, kind) in &frontends {
            self.addresses.add(*at, *kind);
            self.gate.open_frontend(*at);
            self.set_frontend(batch, *at, FrontendRef::new(placed.id, *kind));
        }
        placed.frontends = frontends;
    }

    fn set_frontend(&mut self, batch: &mut Batch, at: FrontendAt, to: FrontendRef) {
        if self.frontends.insert(at, to) != Some(to) {
            batch.frontends.insert(at, Some(to));
        }
    }

    /// Removes a frontend, unless another service has taken it over.
    fn drop_frontend(&mut self, batch: &mut Batch, at: FrontendAt, service: u32) {
        if self
            .frontends
            .get(&at)
            .is_some_and(|to| to.service() == service)
        {
            self.frontends.remove(&at);
            batch.frontends.insert(at, None);
        }
    }

    /// Lets go what `before` has and `after` has not.
    fn depart(&mut self, now: Instant, before: &Placed, after: &Placed) {
        for (socket, &(id, entry)) in &before.backends {
            if !after.backends.contains_key(socket) {
                self.departures.backend(now, id, entry);
            }
        }
        for (extent, _) in &before.extents {
            if !after.extents.iter().any(|(kept, _)| kept == extent) {
                self.departures.slots(now, *extent);
            }
        }
    }

    /// Takes a service port out, and lets go what it has.
    pub(super) fn remove(&mut self, now: Instant, batch: &mut Batch, placed: Placed) {
        for (at, kind) in &placed.frontends {
            self.addresses.remove(*at, *kind);
            self.drop_frontend(batch, *at, placed.id);
        }
        batch.remove.push(Op::RemoveService { id: placed.id });
        batch
            .remove
            .extend(placed.ranges.iter().map(|&range| Op::RemoveRange {
                service: placed.id,
                range,
            }));
        self.depart(now, &placed, &Placed::new(placed.id));
        self.departures.service(now, placed.id);
    }

    /// Closes a batch with what the services' addresses as a whole come to.
    pub(super) fn finish(&mut self, mut batch: Batch, refused: Vec<Refused>) -> Plan {
        let refusal = FrontendRef::new(0, FrontendKind::Refuse);
        for (addr, refuse) in self.addresses.take_touched() {
            let at = FrontendAt::WholeAddress(addr);
            if refuse {
                self.set_frontend(&mut batch, at, refusal);
            } else if self.frontends.remove(&at).is_some() {
                batch.frontends.insert(at, None);
            }
        }
        Plan {
            ops: batch.into_ops(self.gate.take_ops()),
            refused,
        }
    }
}

/// New ranges go in before the service's value can ask for them, old ones go out after it.
pub(super) fn diff_ranges(batch: &mut Batch, placed: &mut Placed, ranges: BTreeSet<Cidr>) {
    let service = placed.id;
    for &range in ranges.difference(&placed.ranges) {
        batch.prepare.push(Op::AddRange { service, range });
    }
    for &range in placed.ranges.difference(&ranges) {
        batch.remove.push(Op::RemoveRange { service, range });
    }
    placed.ranges = ranges;
}
