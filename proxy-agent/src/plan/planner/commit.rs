//! The difference between a service port as it stands and as it is to be, as writes.

use std::{collections::BTreeSet, mem, sync::Arc, time::Instant};

use proxy_common::abi::{FrontendRef, Generation, ServiceId};

use super::{Plan, Planner, place::table_of};
use crate::{
    model::{Cidr, Family},
    plan::{
        FrontendAt, Op,
        batch::Batch,
        ledger::Table,
        placed::{self, Frontends, Placed},
    },
};

/// A source range that goes, and whose it is: it makes room only when it is gone.
pub(super) type GoneRange = (Arc<str>, Cidr);

impl Planner {
    /// Puts the difference of `before` and `placed` into the batch.
    pub(super) fn commit(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        namespace: &Arc<str>,
        before: Option<&Placed>,
        placed: &Placed,
    ) {
        let blank = Placed::new(placed.id);
        let is_new = before.is_none();
        if is_new {
            batch.prepare.push(Op::ClearServiceCount { id: placed.id });
        }
        let before = before.unwrap_or(&blank);
        for seat in &placed.backends {
            let old = before.seat(seat.socket());
            if old.is_none() {
                self.gate.open_backend(seat.socket());
                if seat.generation > Generation::FIRST {
                    batch.prepare.push(Op::ClearBackendCount { id: seat.id });
                }
            }
            if old != Some(seat) {
                batch.prepare.push(Op::Backend {
                    id: seat.id,
                    entry: seat.entry(placed.id),
                });
            }
        }
        for (extent, backends) in &placed.extents {
            if !before.extents.iter().any(|(old, _)| old == extent) {
                batch.prepare.push(Op::Slots {
                    base: extent.base,
                    backends: backends.to_vec(),
                });
            }
        }
        if is_new || placed.value != before.value {
            batch.services.push(Op::Service {
                id: placed.id,
                value: placed.value,
            });
        }
        diff_ranges(
            batch,
            &mut self.gone_ranges,
            namespace,
            placed.id,
            &before.ranges,
            &placed.ranges,
        );
        self.diff_frontends(batch, namespace, placed, &before.frontends);
        self.depart(now, namespace, before, placed);
    }

    fn diff_frontends(
        &mut self,
        batch: &mut Batch,
        namespace: &Arc<str>,
        placed: &Placed,
        before: &Frontends,
    ) {
        // What stays needs no room for another refusal.
        for (at, kind) in before {
            if !placed::stands(&placed.frontends, *at, *kind) {
                self.addresses.remove(*at, *kind);
            }
            if !placed.has_frontend(*at) {
                self.drop_frontend(batch, *at, placed.id);
            }
        }
        for (at, kind) in &placed.frontends {
            if !placed::stands(before, *at, *kind) {
                self.addresses.add(*at, *kind);
            }
            self.gate.open_frontend(*at);
            self.set_frontend(batch, *at, FrontendRef::new(placed.id, *kind));
        }
        self.charge_frontends(namespace, before, &placed.frontends);
    }

    fn charge_frontends(&mut self, namespace: &Arc<str>, before: &Frontends, after: &Frontends) {
        for family in [Family::Ipv4, Family::Ipv6] {
            let entries = |all| placed::entries_of(all, family);
            let (before, after) = (entries(before), entries(after));
            let (table, ledger) = (Table::Frontends(family), &mut self.tables.ledger);
            if after > before {
                ledger.charge(namespace, table, after - before);
            } else if before > after {
                ledger.give_back(namespace, table, before - after);
                self.has_freed = true;
            }
        }
    }

    fn set_frontend(&mut self, batch: &mut Batch, at: FrontendAt, to: FrontendRef) {
        if self.tables.set_frontend(at, to) {
            batch.frontends.insert(at, Some(to));
        }
    }

    /// Removes a frontend, unless another service has taken it over.
    fn drop_frontend(&mut self, batch: &mut Batch, at: FrontendAt, service: ServiceId) {
        let standing = self.tables.frontend(at);
        if standing.is_some_and(|to| to.service() == service) {
            self.tables.drop_frontend(at);
            batch.frontends.insert(at, None);
        }
    }

    /// Lets go what `before` has and `after` has not.
    fn depart(&mut self, now: Instant, namespace: &Arc<str>, before: &Placed, after: &Placed) {
        for seat in &before.backends {
            if after.seat(seat.socket()).is_none() {
                let entry = seat.entry(before.id);
                self.departures.backend(now, namespace, seat.id, entry);
            }
        }
        for (extent, _) in &before.extents {
            if !after.extents.iter().any(|(kept, _)| kept == extent) {
                self.departures.slots(now, namespace, *extent);
            }
        }
    }

    /// Takes a service port out, and lets go what it has.
    pub(super) fn remove(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        namespace: &Arc<str>,
        placed: &Placed,
    ) {
        for (at, kind) in &placed.frontends {
            self.addresses.remove(*at, *kind);
            self.drop_frontend(batch, *at, placed.id);
        }
        self.charge_frontends(namespace, &placed.frontends, &Frontends::new());
        batch.remove.push(Op::RemoveService { id: placed.id });
        diff_ranges(
            batch,
            &mut self.gone_ranges,
            namespace,
            placed.id,
            &placed.ranges,
            &BTreeSet::new(),
        );
        self.depart(now, namespace, placed, &Placed::new(placed.id));
        self.departures.service(now, namespace, placed.id);
    }

    /// Closes a batch with what the services' addresses as a whole come to.
    pub(super) fn finish(&mut self, mut batch: Batch) -> Plan {
        let refusal = FrontendRef::REFUSE;
        for (addr, refuse) in self.addresses.take_touched() {
            let at = FrontendAt::WholeAddress(addr);
            if !refuse {
                if self.tables.drop_frontend(at) {
                    batch.frontends.insert(at, None);
                }
            } else if self.tables.frontend(at).is_some()
                || self.tables.has_room_for_frontend(at.family())
            {
                self.set_frontend(&mut batch, at, refusal);
            } else {
                // The address was one of the node's own until now: its turn comes with room.
                self.addresses.touch(addr);
            }
        }
        let gone = mem::take(&mut self.gone_ranges);
        self.give_back_ranges(gone);
        Plan {
            ops: batch.into_ops(self.gate.take_ops()),
            room: self.tables.room(),
        }
    }

    /// What is gone makes room.
    pub(super) fn give_back_ranges(&mut self, gone: Vec<GoneRange>) {
        for (namespace, range) in gone {
            self.tables.ledger.give_back(&namespace, table_of(range), 1);
            self.has_freed = true;
        }
    }
}

/// New ranges go in before the service's value can ask for them, old ones go out after it.
pub(super) fn diff_ranges(
    batch: &mut Batch,
    gone: &mut Vec<GoneRange>,
    namespace: &Arc<str>,
    service: ServiceId,
    before: &BTreeSet<Cidr>,
    after: &BTreeSet<Cidr>,
) {
    for &range in after.difference(before) {
        batch.prepare.push(Op::AddRange { service, range });
    }
    for &range in before.difference(after) {
        batch.remove.push(Op::RemoveRange { service, range });
        gone.push((Arc::clone(namespace), range));
    }
}
