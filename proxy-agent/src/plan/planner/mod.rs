//! The state between calls: who has which id, and what changes for one service.
//!
//! | file | subject |
//! |---|---|
//! | `adopt` | a planner over maps that an earlier process left |
//! | `place` | ids, backends and slots for one service port |
//! | `commit` | the difference as writes |
//! | `stale` | what nothing desired claims makes room for what is desired |
//! | `shortage` | what there is no room for |

mod adopt;
mod commit;
mod place;
mod shortage;
mod stale;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet},
    iter, mem,
    sync::Arc,
    time::Instant,
};

use proxy_common::abi::ServiceId;

pub use self::shortage::LeftOut;
use self::{
    commit::{GoneRange, diff_ranges},
    place::{fit_ranges, wanted_ranges},
};
use super::{
    Limits, Op, Room,
    addresses::{Addresses, NodeAddresses},
    batch::Batch,
    departures::Departures,
    gate::Gate,
    placed::{self, Placed},
    tables::Tables,
};
use crate::model::{DesiredService, ObjectName, ServicePortKey};

/// What to write, and how large the tables have to be for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub room: Room,
}

/// All desired state of one service: one value for each port and family, none for one that is gone.
pub type Change = (ObjectName, Vec<DesiredService>);

#[derive(Debug)]
pub struct Planner {
    hz: u32,
    /// The ports of each service; one, nearly always.
    services: HashMap<ObjectName, Vec<(Arc<ServicePortKey>, Placed)>>,
    /// Services of the image that nothing desired has claimed yet, by id.
    unclaimed: HashMap<ServiceId, Placed>,
    tables: Tables,
    addresses: Addresses,
    gate: Gate,
    departures: Departures,
    /// Services that there was no room for, or not for all of them.
    left_out: BTreeMap<ObjectName, LeftOut>,
    gone_ranges: Vec<GoneRange>,
    /// Room has become free since somebody asked.
    has_freed: bool,
    /// Writes that undo what a process left half done.
    strays: Vec<Op>,
    /// The namespace of what nothing desired has claimed.
    nobody: Arc<str>,
}

impl Planner {
    /// Brings the services that are named to what is desired of them.
    pub fn update(&mut self, now: Instant, changes: &[Change]) -> Plan {
        let mut batch = Batch::default();
        for change in changes {
            self.place_service(now, &mut batch, change);
        }
        self.finish(batch)
    }

    /// The same, where `changes` are all services that there are: whatever else stands in the maps goes, and first of all if it stands
    /// in the way. Each is taken once the one before it is placed, so that they need not all be there at a time.
    pub fn sync(
        &mut self,
        now: Instant,
        changes: impl IntoIterator<Item = impl Borrow<Change>>,
    ) -> Plan {
        let mut batch = Batch::default();
        // First of all: the ids that they name may be given to others.
        batch.prepare.append(&mut self.strays);
        let mut named = HashSet::new();
        let mut first = Vec::new();
        let mut changes = changes.into_iter();
        self.tables.take_crowded();
        while let Some(change) = changes.next() {
            named.insert(change.borrow().0.clone());
            self.place_service(now, &mut batch, change.borrow());
            if self.tables.take_crowded() && self.has_stale() {
                // Once more, and those that come after it, which may claim what seems to be stale.
                let rest: Vec<_> = iter::once(change).chain(changes.by_ref()).collect();
                for change in &rest {
                    named.insert(change.borrow().0.clone());
                    self.claim_service(change.borrow());
                }
                first = self.make_room(now, &batch);
                for change in rest {
                    self.place_service(now, &mut batch, change.borrow());
                }
            }
        }
        let gone: Vec<ObjectName> = self
            .services
            .keys()
            .filter(|name| !named.contains(name))
            .cloned()
            .collect();
        for name in gone {
            self.place_service(now, &mut batch, &(name, Vec::new()));
        }
        let nobody = Arc::clone(&self.nobody);
        for placed in mem::take(&mut self.unclaimed).into_values() {
            self.remove(now, &mut batch, &nobody, &placed);
        }
        self.left_out.retain(|name, _| named.contains(name));
        let Plan { mut ops, room } = self.finish(batch);
        ops.splice(0..0, first);
        if self.has_stale() {
            ops.extend(self.let_stale_go());
        }
        Plan { ops, room }
    }

    /// Takes over the node's addresses: which backends are on them, which of them are ClusterIPs.
    pub fn set_node(&mut self, node: NodeAddresses) -> Plan {
        let mut batch = Batch::default();
        self.addresses.set_node(node);
        let node = &self.addresses.node;
        for (name, ports) in &mut self.services {
            for (_, placed) in ports {
                for seat in &mut placed.backends {
                    let flags = placed::host_flag(seat.flags, seat.socket().ip(), node);
                    if flags != seat.flags {
                        seat.flags = flags;
                        batch.prepare.push(Op::Backend {
                            id: seat.id,
                            entry: seat.entry(placed.id),
                        });
                    }
                }
                if placed.source_ranges.is_empty() {
                    continue;
                }
                let mut left_out = LeftOut::default();
                let ranges = fit_ranges(
                    &mut self.tables,
                    &name.namespace,
                    &placed.ranges,
                    wanted_ranges(placed, node),
                    &mut left_out,
                );
                diff_ranges(
                    &mut batch,
                    &mut self.gone_ranges,
                    &name.namespace,
                    placed.id,
                    &placed.ranges,
                    &ranges,
                );
                placed.ranges = ranges;
                if !left_out.is_nothing() {
                    self.left_out.insert(name.clone(), left_out);
                }
            }
        }
        self.finish(batch)
    }

    /// Closes backends, and frees ids and slots after the grace period.
    pub fn advance(&mut self, now: Instant) -> Vec<Op> {
        let ops = self.departures.close(now);
        while let Some((free, namespace)) = self.departures.rested(now) {
            self.tables.give_back(&namespace, free);
            self.has_freed = true;
        }
        ops
    }

    /// When to call [`Self::advance`] next.
    pub fn next_due(&self) -> Option<Instant> {
        self.departures.next_due()
    }

    /// The tables may grow so far from now on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.tables.set_limits(limits);
        self.has_freed = true;
    }

    /// What there is no room for.
    pub const fn left_out(&self) -> &BTreeMap<ObjectName, LeftOut> {
        &self.left_out
    }

    /// Has room become free since the last call? Then what is left out is worth another [`Self::update`].
    pub fn take_freed(&mut self) -> bool {
        mem::take(&mut self.has_freed)
    }

    /// The service ids in use, and whose they are.
    pub fn names(&self) -> impl Iterator<Item = (ServiceId, &Arc<ServicePortKey>)> {
        self.services
            .values()
            .flatten()
            .map(|(key, placed)| (placed.id, key))
    }

    fn place_service(&mut self, now: Instant, batch: &mut Batch, (name, desired): &Change) {
        let mut old: BTreeMap<_, _> = match self.services.remove(name) {
            Some(ports) => ports.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let mut new = Vec::with_capacity(desired.len());
        let mut left_out = LeftOut::default();
        for desired in desired {
            let before = match old.remove_entry(&desired.key) {
                Some(known) => Some(known),
                None => self
                    .claim(desired)
                    .map(|placed| (Arc::new(desired.key.clone()), placed)),
            };
            let placed_before = before.as_ref().map(|(_, placed)| placed);
            match self.place(now, batch, desired, placed_before, &mut left_out) {
                Some(placed) => {
                    let key = match before {
                        Some((key, _)) => key,
                        None => Arc::new(desired.key.clone()),
                    };
                    new.push((key, placed));
                }
                None => new.extend(before),
            }
        }
        for placed in old.into_values() {
            self.remove(now, batch, &name.namespace, &placed);
        }
        if !new.is_empty() {
            new.shrink_to_fit();
            let name = new[0].0.service.clone();
            self.services.insert(name, new);
        }
        if left_out.is_nothing() {
            self.left_out.remove(name);
        } else {
            self.left_out.insert(name.clone(), left_out);
        }
    }
}
