//! The state between calls: who has which id, and what changes for one service.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::Instant,
};

use proxy_common::abi::{Extent, FrontendKind, FrontendRef};

use super::{
    BackendEntry, FrontendAt, Image, Op,
    addresses::{Addresses, NodeAddresses},
    batch::Batch,
    departures::Departures,
    extents::Extents,
    gate::Gate,
    ids::{BackendIds, Ids},
    placed::{self, Filled, Placed},
};
use crate::model::{Cidr, DesiredService, EndpointId, ObjectName, ServicePortKey};

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

/// A service port that stays as it is because a map is full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub key: ServicePortKey,
    pub shortage: Shortage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    Services,
    Backends,
    Slots,
}

/// All desired state of one service: one value for each port and family, none for one that is gone.
pub type Change = (ObjectName, Vec<DesiredService>);

#[derive(Debug)]
pub struct Planner {
    hz: u32,
    services: HashMap<ObjectName, BTreeMap<ServicePortKey, Placed>>,
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
    /// A planner over maps that hold `image`. Ids and slots in use stay with the services that have them.
    pub fn new(limits: Limits, hz: u32, node: NodeAddresses, image: &Image, now: Instant) -> Self {
        let mut unclaimed = placed::read(image);
        let mut extents = Extents::new(limits.slots);
        for placed in unclaimed.values_mut() {
            placed
                .extents
                .retain(|(extent, _)| extents.reserve(*extent));
        }
        let mut addresses = Addresses::new(node);
        for (at, kind) in unclaimed.values().flat_map(|placed| &placed.frontends) {
            addresses.add(*at, *kind);
        }
        let is_stray = |to: &FrontendRef| {
            to.kind() != FrontendKind::Refuse && !image.services.contains_key(&to.service())
        };
        let (stray, frontends): (HashMap<_, _>, HashMap<_, _>) =
            image.frontends.iter().partition(|(_, to)| is_stray(to));
        let mut strays: Vec<Op> = stray
            .into_keys()
            .map(|at| Op::RemoveFrontend { at })
            .collect();
        strays.extend(
            image
                .ranges
                .iter()
                .filter(|(service, _)| !image.services.contains_key(service))
                .map(|&(service, range)| Op::RemoveRange { service, range }),
        );
        for at in frontends.keys() {
            if let FrontendAt::WholeAddress(addr) = at {
                addresses.touch(*addr);
            }
        }
        let mut departures = Departures::default();
        let mut used = BTreeSet::new();
        let mut generations = HashMap::new();
        for (&id, &entry) in &image.backends {
            generations.insert(id, entry.generation);
            if entry.flags == 0 {
                continue;
            }
            used.insert(id);
            let owned = unclaimed
                .get(&entry.service)
                .and_then(|placed| placed.backends.get(&entry.socket))
                .is_some_and(|(owner, _)| *owner == id);
            if !owned {
                departures.backend(now, id, entry);
            }
        }
        Self {
            hz,
            services: HashMap::new(),
            frontends,
            addresses,
            gate: Gate::new(&image.gate),
            service_ids: Ids::new(limits.services, &image.services.keys().copied().collect()),
            backend_ids: BackendIds::new(limits.backends, &used, generations),
            extents,
            departures,
            waiting: BTreeSet::new(),
            strays,
            unclaimed,
        }
    }

    /// Brings the services that are named to what is desired of them.
    pub fn update(&mut self, now: Instant, changes: &[Change]) -> Plan {
        let mut batch = Batch::default();
        let refused = self.place_all(now, &mut batch, changes);
        self.finish(batch, refused)
    }

    /// The same, where `changes` are all services that there are: whatever else stands in the maps goes.
    pub fn sync(&mut self, now: Instant, changes: &[Change]) -> Plan {
        let mut batch = Batch::default();
        // First of all: the ids that they name may be given to others.
        batch.prepare.append(&mut self.strays);
        let refused = self.place_all(now, &mut batch, changes);
        let named: HashSet<&ObjectName> = changes.iter().map(|(name, _)| name).collect();
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
                self.remove(now, &mut batch, placed);
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

    fn place_all(&mut self, now: Instant, batch: &mut Batch, changes: &[Change]) -> Vec<Refused> {
        let mut refused = Vec::new();
        for (name, desired) in changes {
            self.waiting.remove(name);
            let mut old = self.services.remove(name).unwrap_or_default();
            let mut new = BTreeMap::new();
            for desired in desired {
                let before = old.remove(&desired.key).or_else(|| self.claim(desired));
                match self.place(now, batch, desired, before.as_ref()) {
                    Ok(placed) => {
                        new.insert(desired.key.clone(), placed);
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
                self.remove(now, batch, placed);
            }
            if !new.is_empty() {
                self.services.insert(name.clone(), new);
            }
        }
        refused
    }

    /// The service of the image that has one of the frontends of `desired`, and so is it.
    fn claim(&mut self, desired: &DesiredService) -> Option<Placed> {
        if self.unclaimed.is_empty() {
            return None;
        }
        placed::frontends(desired)
            .keys()
            .find_map(|at| self.unclaimed.remove(&self.frontends.get(at)?.service()))
    }

    /// Finds what changes for one service port. On a shortage nothing has changed.
    fn place(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        desired: &DesiredService,
        before: Option<&Placed>,
    ) -> Result<Placed, Shortage> {
        let mut placed = match before {
            Some(before) => before.clone(),
            None => Placed::new(self.service_ids.take().ok_or(Shortage::Services)?),
        };
        let ids = match self.place_backends(&mut placed, desired) {
            Ok(ids) => ids,
            Err(shortage) => return Err(self.give_up(before, &placed, shortage)),
        };
        let list =
            |endpoints: &[EndpointId]| -> Vec<u32> { endpoints.iter().map(|id| ids[id]).collect() };
        let lists = [
            list(&desired.internal.endpoints),
            list(&desired.external.endpoints),
            list(&desired.cluster),
        ];
        let Some((extents, scopes)) = self.place_extents(&placed.extents, lists) else {
            return Err(self.give_up(before, &placed, Shortage::Slots));
        };
        placed.extents = extents;
        let [internal, external, short_circuit] = scopes;
        placed.value = placed::value(desired, self.hz, internal, external, short_circuit);
        self.commit(now, batch, desired, before, &mut placed);
        Ok(placed)
    }

    /// Gives every serving endpoint a backend: its own, or a new one. Returns their ids.
    fn place_backends(
        &mut self,
        placed: &mut Placed,
        desired: &DesiredService,
    ) -> Result<HashMap<EndpointId, u32>, Shortage> {
        let old = std::mem::take(&mut placed.backends);
        let mut ids = HashMap::new();
        for (socket, flags, endpoint) in placed::serving(desired) {
            let flags = placed::host_flag(flags, socket.ip(), &self.addresses.node);
            let (id, generation) = match old.get(&socket) {
                Some((id, entry)) => (*id, entry.generation),
                None => self.backend_ids.take().ok_or(Shortage::Backends)?,
            };
            let entry = BackendEntry {
                socket,
                flags,
                generation,
                service: placed.id,
            };
            placed.backends.insert(socket, (id, entry));
            ids.insert(endpoint, id);
        }
        Ok(ids)
    }

    /// An extent for each list: one that holds it already, or a new one. `None` where there is no room, and then none is taken.
    fn place_extents(
        &mut self,
        old: &[(Extent, Vec<u32>)],
        lists: [Vec<u32>; 3],
    ) -> Option<(Filled, [Extent; 3])> {
        let mut extents = Filled::new();
        let mut scopes = [Extent::default(); 3];
        for (scope, list) in scopes.iter_mut().zip(lists) {
            if list.is_empty() {
                continue;
            }
            let known = |(_, held): &&(Extent, Vec<u32>)| *held == list;
            if let Some((extent, _)) = extents.iter().find(known) {
                *scope = *extent;
                continue;
            }
            let found = match old.iter().find(known) {
                Some((extent, _)) => Some(*extent),
                None => self.extents.take(list.len() as u32),
            };
            let Some(extent) = found else {
                for (extent, _) in extents {
                    if !old.iter().any(|(kept, _)| *kept == extent) {
                        self.extents.give_back(extent);
                    }
                }
                return None;
            };
            *scope = extent;
            extents.push((extent, list));
        }
        Some((extents, scopes))
    }

    /// Gives back the ids that a service took which cannot be placed.
    fn give_up(
        &mut self,
        before: Option<&Placed>,
        placed: &Placed,
        shortage: Shortage,
    ) -> Shortage {
        for (socket, (id, _)) in &placed.backends {
            if before.is_none_or(|before| !before.backends.contains_key(socket)) {
                self.backend_ids.give_back(*id);
            }
        }
        if before.is_none() {
            self.service_ids.give_back(placed.id);
        }
        shortage
    }

    /// Puts the difference of `before` and `placed` into the batch.
    fn commit(
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

    fn remove(&mut self, now: Instant, batch: &mut Batch, placed: Placed) {
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

    fn finish(&mut self, mut batch: Batch, refused: Vec<Refused>) -> Plan {
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
fn diff_ranges(batch: &mut Batch, placed: &mut Placed, ranges: BTreeSet<Cidr>) {
    let service = placed.id;
    for &range in ranges.difference(&placed.ranges) {
        batch.prepare.push(Op::AddRange { service, range });
    }
    for &range in placed.ranges.difference(&ranges) {
        batch.remove.push(Op::RemoveRange { service, range });
    }
    placed.ranges = ranges;
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "no room for another service port (--max-services)",
            Self::Backends => "no room for its endpoints (--max-backends)",
            Self::Slots => "no room for its lists of endpoints (--max-backends)",
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: {}", self.key, self.shortage)
    }
}
