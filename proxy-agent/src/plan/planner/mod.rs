//! The state between calls: who has which id, and what changes for one service.
//!
//! | file | subject |
//! |---|---|
//! | `adopt` | a planner over maps that an earlier process left |
//! | `place` | ids, backends and slots for one service port |
//! | `commit` | the difference as writes |
//! | `shortage` | what there is no room for |

mod adopt;
mod commit;
mod place;
mod shortage;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Instant,
};

use proxy_common::abi::FrontendRef;

use self::commit::diff_ranges;
pub use self::shortage::{Refused, Shortage};
use super::{
    FrontendAt, Op,
    addresses::{Addresses, NodeAddresses},
    batch::Batch,
    departures::Departures,
    extents::Extents,
    gate::Gate,
    ids::{BackendIds, Ids},
    placed::{self, Placed},
};
use crate::model::{DesiredService, ObjectName, ServicePortKey};

/// How much the maps hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub services: u32,
    pub backends: u32,
    pub slots: u32,
}

/// What to write, and what there is no room for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub refused: Vec<Refused>,
}

/// All desired state of one service: one value for each port and family, none for one that is gone.
pub type Change = (ObjectName, Vec<DesiredService>);

#[derive(Debug)]
pub struct Planner {
    hz: u32,
    /// Boxed, since a tree of one has room for eleven.
    services: HashMap<ObjectName, BTreeMap<ServicePortKey, Box<Placed>>>,
    /// Services of the image that nothing desired has claimed yet, by id.
    unclaimed: HashMap<u32, Placed>,
    /// What stands in the frontends table.
    frontends: HashMap<FrontendAt, FrontendRef>,
    addresses: Addresses,
    gate: Gate,
    service_ids: Ids,
    backend_ids: BackendIds,
    extents: Extents,
    departures: Departures,
    /// Services with a port that there was no room for.
    waiting: BTreeSet<ObjectName>,
    /// Writes that undo what a process left half done.
    strays: Vec<Op>,
}

impl Planner {
    /// Brings the services that are named to what is desired of them.
    pub fn update(&mut self, now: Instant, changes: &[Change]) -> Plan {
        let mut batch = Batch::default();
        let mut refused = Vec::new();
        for change in changes {
            self.place_service(now, &mut batch, change, &mut refused);
        }
        self.finish(batch, refused)
    }

    /// The same, where `changes` are all services that there are: whatever else stands in the maps goes. Each is taken once the one
    /// before it is placed, so that they need not all be there at a time.
    pub fn sync(
        &mut self,
        now: Instant,
        changes: impl IntoIterator<Item = impl Borrow<Change>>,
    ) -> Plan {
        let mut batch = Batch::default();
        // First of all: the ids that they name may be given to others.
        batch.prepare.append(&mut self.strays);
        let mut refused = Vec::new();
        let mut named = HashSet::new();
        for change in changes {
            let change = change.borrow();
            named.insert(change.0.clone());
            self.place_service(now, &mut batch, change, &mut refused);
        }
        let gone: Vec<ObjectName> = self
            .services
            .keys()
            .filter(|name| !named.contains(name))
            .cloned()
            .collect();
        for name in gone {
            for placed in self
                .services
                .remove(&name)
                .into_iter()
                .flat_map(BTreeMap::into_values)
            {
                self.remove(now, &mut batch, *placed);
            }
        }
        for placed in std::mem::take(&mut self.unclaimed).into_values() {
            self.remove(now, &mut batch, placed);
        }
        self.finish(batch, refused)
    }

    /// Takes over the node's addresses: which backends are on them, which of them are ClusterIPs.
    pub fn set_node(&mut self, node: NodeAddresses) -> Plan {
        let mut batch = Batch::default();
        self.addresses.set_node(node);
        let node = &self.addresses.node;
        for placed in self.services.values_mut().flat_map(BTreeMap::values_mut) {
            for (id, entry) in placed.backends.values_mut() {
                let flags = placed::host_flag(entry.flags, entry.socket.ip(), node);
                if flags != entry.flags {
                    entry.flags = flags;
                    batch.prepare.push(Op::Backend {
                        id: *id,
                        entry: *entry,
                    });
                }
            }
            if !placed.source_ranges.is_empty() {
                let ranges = placed::ranges(&placed.source_ranges, &placed.frontends, node);
                diff_ranges(&mut batch, placed, ranges);
            }
        }
        self.finish(batch, Vec::new())
    }

    /// What time brings: backends close, ids and slots become free.
    pub fn advance(&mut self, now: Instant) -> Vec<Op> {
        let ops = self.departures.close(now);
        self.departures.free(
            now,
            &mut self.service_ids,
            &mut self.backend_ids,
            &mut self.extents,
        );
        ops
    }

    /// When to call [`Self::advance`] next.
    pub fn next_due(&self) -> Option<Instant> {
        self.departures.next_due()
    }

    /// Services with a port that there was no room for: worth another [`Self::update`] when something has become free.
    pub const fn waiting(&self) -> &BTreeSet<ObjectName> {
        &self.waiting
    }

    /// The service ids in use, and whose they are.
    pub fn names(&self) -> impl Iterator<Item = (u32, &ServicePortKey)> {
        self.services
            .values()
            .flatten()
            .map(|(key, placed)| (placed.id, key))
    }

    fn place_service(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        (name, desired): &Change,
        refused: &mut Vec<Refused>,
    ) {
        self.waiting.remove(name);
        let mut old = self.services.remove(name).unwrap_or_default();
        let mut new = BTreeMap::new();
        for desired in desired {
            let before = old
                .remove(&desired.key)
                .or_else(|| self.claim(desired).map(Box::new));
            match self.place(now, batch, desired, before.as_deref()) {
                Ok(placed) => {
                    new.insert(desired.key.clone(), Box::new(placed));
                }
                Err(shortage) => {
                    self.waiting.insert(name.clone());
                    refused.push(Refused {
                        key: desired.key.clone(),
                        shortage,
                    });
                    new.extend(before.map(|before| (desired.key.clone(), before)));
                }
            }
        }
        for placed in old.into_values() {
            self.remove(now, batch, *placed);
        }
        if !new.is_empty() {
            self.services.insert(name.clone(), new);
        }
    }
}
