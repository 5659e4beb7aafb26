//! Objects by key, and which services an event makes dirty.
//!
//! In: [`Event`]s, in any order. Out: [`Store::take_dirty`] names the services whose desired state may have changed, and
//! [`Store::desired`] gives it. Applying an event costs what the changed object and the services that it touches cost,
//! however many others there are. Nothing is dirty before both lists are complete: until then, what is missing cannot be
//! told from what is not there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

use super::{
    Balancing, Bounds, Cidr, DesiredService, EndpointSlice, Event, Family, Kind, Node, ObjectName,
    Ranges, Service, ServicePortKey,
    claims::{self, Claims},
    endpoints::{self, Slices},
    policy,
    pool::Pool,
    refusals::Refusals,
    stranger::{Names, Stranger},
    warning::Warning,
};

#[derive(Debug)]
pub struct Store {
    node: Node,
    node_names: Names,
    refusals: Refusals,
    /// Of services that say nothing.
    balancing: Balancing,
    bounds: Bounds,
    /// Boxed: a node of the tree has room for eleven.
    services: BTreeMap<ObjectName, Box<Service>>,
    /// The slices of each service (that may not exist), in the order of their names; one, nearly always.
    slices: HashMap<ObjectName, Vec<EndpointSlice>>,
    /// The service, in its own namespace, that each slice belongs to.
    slice_owners: HashMap<ObjectName, Arc<str>>,
    pool: Pool,
    /// How many ports the bounds leave out, of services where that is any.
    beyond: HashMap<ObjectName, u32>,
    claims: Claims,
    services_synced: bool,
    slices_synced: bool,
    dirty: BTreeSet<ObjectName>,
    warnings: Vec<Warning>,
    triggers: Vec<SystemTime>,
}

impl Store {
    /// An empty store on the node named `node_name`.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node: Node::named(node_name),
            node_names: Names::default(),
            refusals: Refusals::default(),
            balancing: Balancing::default(),
            bounds: Bounds::default(),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            slice_owners: HashMap::new(),
            pool: Pool::default(),
            beyond: HashMap::new(),
            claims: Claims::default(),
            services_synced: false,
            slices_synced: false,
            dirty: BTreeSet::new(),
            warnings: Vec::new(),
            triggers: Vec::new(),
        }
    }

    /// The same, where no object may name an address of these.
    pub fn refusing(mut self, ranges: Ranges) -> Self {
        self.refusals.ranges = ranges;
        self
    }

    /// The same, where external IPs are served or not.
    pub fn serving_external_ips(mut self, external_ips: bool) -> Self {
        self.refusals.external_ips = external_ips;
        self
    }

    /// The same, where services that say nothing choose their endpoints so.
    #[must_use]
    pub fn balancing_by(self, balancing: Balancing) -> Self {
        Self { balancing, ..self }
    }

    /// The same with other bounds for each service.
    #[must_use]
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// The broadcast addresses of this node's subnets are these now.
    pub fn set_broadcasts(&mut self, broadcasts: BTreeSet<IpAddr>) {
        if self.refusals.broadcasts != broadcasts {
            self.refusals.broadcasts = broadcasts;
            self.dirty.extend(self.services.keys().cloned());
        }
    }

    pub fn apply(&mut self, event: Event) {
        match event {
            Event::ServiceUpserted(service) => self.put_service(service),
            Event::ServiceDeleted(name) => self.delete_service(&name),
            Event::SliceUpserted(slice) => self.put_slice(slice),
            Event::SliceDeleted(name) => self.delete_slice(&name),
            Event::NodeChanged(node) => self.put_node(node),
            Event::Synced(Kind::Service) => self.services_synced = true,
            Event::Synced(Kind::EndpointSlice) => self.slices_synced = true,
        }
    }

    /// Are both lists complete?
    pub fn is_synced(&self) -> bool {
        self.services_synced && self.slices_synced
    }

    /// The services to look at again, each once, and forgets them. Empty until the store is synced; the first time after
    /// that it names every service.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        if self.is_synced() {
            mem::take(&mut self.dirty)
        } else {
            BTreeSet::new()
        }
    }

    /// What was found wrong with objects since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        mem::take(&mut self.warnings)
    }

    /// That nobody knows this node by its name, once.
    pub fn take_stranger(&mut self) -> Option<Stranger> {
        if !self.is_synced() {
            return None;
        }
        self.node_names.take_stranger(&self.node.name)
    }

    /// What is wrong with a service now: addresses that it lost, and what was refused of it and of its slices.
    pub fn warnings_of(&self, name: &ObjectName) -> Vec<Warning> {
        let Some(service) = self.service(name) else {
            return Vec::new();
        };
        let slices = self.slices.get(name).map_or(&[][..], Vec::as_slice);
        let mut warnings = self.refusals.of(service, slices);
        warnings.extend(ignored(service));
        warnings.extend(slices.iter().flat_map(ignored_of_slice));
        warnings.extend(self.claims.lost(service));
        warnings
    }

    /// When that happened which the slices that changed since the last call were written for.
    pub fn take_triggers(&mut self) -> Vec<SystemTime> {
        mem::take(&mut self.triggers)
    }

    /// The desired state of a service: one value per port and family, in the service's own order. Empty for a service
    /// that is not (or no longer) there.
    pub fn desired(&self, name: &ObjectName) -> Vec<DesiredService> {
        let Some(service) = self.service(name) else {
            return Vec::new();
        };
        let slices = self.slices.get(name).map_or(&[][..], Vec::as_slice);
        let slices = Slices::new(slices);
        let mut room = self.bounds.endpoints;
        let mut all = Vec::with_capacity(service.ports.len() * service.families.len());
        for index in 0..service.ports.len() {
            for &family in &service.families {
                all.push(self.desired_port(service, index, family, &slices, &mut room));
            }
        }
        all
    }

    /// How many ports of a service its bounds leave out.
    pub fn ports_left_out(&self, name: &ObjectName) -> u32 {
        self.beyond.get(name).copied().unwrap_or(0)
    }

    /// Who comes first where there is not room for all: the older service, of two as old the one that asks for less.
    pub fn rank(&self, name: &ObjectName) -> (i64, usize) {
        let Some(service) = self.service(name) else {
            return (i64::MIN, 0);
        };
        let slices = self.slices.get(name).into_iter().flatten();
        let endpoints: usize = slices.map(|slice| slice.endpoints.len()).sum();
        (service.created, service.ports.len() * (1 + endpoints))
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(Box::as_ref)
    }

    /// A service, if it is there.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name).map(Box::as_ref)
    }

    /// The node that this store is for.
    pub fn node(&self) -> &Node {
        &self.node
    }

    fn desired_port<'a>(
        &'a self,
        service: &Service,
        index: usize,
        family: Family,
        slices: &Slices<'a>,
        room: &mut u32,
    ) -> DesiredService {
        let port = &service.ports[index];
        let key = ServicePortKey {
            service: service.name.clone(),
            port_name: port.name.clone(),
            protocol: port.protocol,
            family,
        };
        let (candidates, left_out) = endpoints::merge(
            slices,
            &key,
            &self.node.name,
            &self.refusals.broadcasts,
            room,
        );
        let choice = policy::choose(
            &candidates,
            &self.node,
            service.internal_policy,
            service.external_policy,
        );
        let mut frontends = self.claims.owned(service, index, family);
        frontends.retain(|at| {
            at.addr
                .is_none_or(|addr| !self.refusals.broadcasts.contains(&addr))
        });
        DesiredService {
            frontends,
            endpoints: candidates.iter().map(|c| c.endpoint).collect(),
            internal: choice.internal,
            external: choice.external,
            cluster: choice.cluster,
            has_any: choice.has_any,
            affinity: service.affinity,
            balancing: service.asks.balancing.unwrap_or(self.balancing),
            hold: service.asks.hold,
            source_ranges: effective_ranges(&service.source_ranges, family),
            left_out,
            key,
        }
    }

    fn put_service(&mut self, mut service: Service) {
        let name = service.name.clone();
        if let Some(warnings) = self.refusals.take_service(&mut service) {
            self.warnings.extend(warnings);
            self.dirty.insert(name.clone());
        }
        let beyond = self.bounds.trim(&mut service);
        let old = self.service(&name);
        if old == Some(&service) && beyond == self.ports_left_out(&name) {
            return;
        }
        let is_told = old.is_some_and(|old| old.asks.ignored == service.asks.ignored);
        let before = old.map(claims::of).unwrap_or_default();
        if !is_told {
            self.warnings.extend(ignored(&service));
        }
        self.pool.share_service(&mut service);
        let name = service.name.clone();
        self.move_claims(&before, &claims::of(&service));
        match beyond {
            0 => self.beyond.remove(&name),
            some => self.beyond.insert(name.clone(), some),
        };
        // The key shares its texts with the value.
        self.services.remove(&name);
        self.services.insert(name.clone(), Box::new(service));
        self.dirty.insert(name);
    }

    fn delete_service(&mut self, name: &ObjectName) {
        if let Some(old) = self.services.remove(name) {
            self.move_claims(&claims::of(&old), &BTreeSet::new());
            self.refusals.forget_service(name);
            self.beyond.remove(name);
            self.dirty.insert(name.clone());
        }
    }

    /// Replaces the claims `before` of a service by those it has `after`; services that lose or gain an address by it
    /// become dirty.
    fn move_claims(
        &mut self,
        before: &BTreeSet<(claims::ServiceAddress, claims::Claim)>,
        after: &BTreeSet<(claims::ServiceAddress, claims::Claim)>,
    ) {
        for (address, claim) in before.difference(after) {
            let owned = self.claims.owner(address) == Some(claim);
            self.claims.remove(address, claim);
            if let Some(heir) = self.claims.owner(address).filter(|_| owned) {
                self.dirty.insert(heir.service.clone());
            }
        }
        for (address, claim) in after.difference(before) {
            self.claims.insert(*address, claim.clone());
            let (Some(winner), Some(second)) =
                (self.claims.owner(address), self.claims.runner_up(address))
            else {
                continue;
            };
            let loser = if winner == claim { second } else { claim };
            self.dirty.insert(loser.service.clone());
            self.warnings.push(Warning::FrontendConflict {
                address: *address,
                winner: winner.service.clone(),
                loser: loser.service.clone(),
            });
        }
    }

    fn put_slice(&mut self, mut slice: EndpointSlice) {
        let warnings = self.refusals.take_slice(&mut slice);
        let mut is_changed = warnings.is_some();
        self.warnings.extend(warnings.unwrap_or_default());
        if !self.knows_ignored(&slice) {
            self.warnings.extend(ignored_of_slice(&slice));
        }
        self.node_names.has_slice(&slice, &self.node.name);
        self.pool.share_slice(&mut slice);
        let owner = slice.service_name();
        let known = self.slice_owners.remove(&slice.name);
        self.slice_owners
            .insert(slice.name.clone(), Arc::clone(&slice.service));
        if let Some(old) = known.filter(|old| *old != slice.service) {
            self.detach_slice(&old, &slice.name);
        }
        let triggered = slice.triggered;
        let siblings = self
            .slices
            .entry(owner.clone())
            .or_insert_with(|| Vec::with_capacity(1));
        match siblings.binary_search_by(|one| one.name.name.cmp(&slice.name.name)) {
            Ok(at) if siblings[at] == slice => {}
            Ok(at) => {
                siblings[at] = slice;
                is_changed = true;
            }
            Err(at) => {
                siblings.insert(at, slice);
                is_changed = true;
            }
        }
        if is_changed {
            self.triggers.extend(triggered);
            self.touch(&owner);
        }
    }

    /// Was the same of this slice told before?
    fn knows_ignored(&self, slice: &EndpointSlice) -> bool {
        let siblings = self.slices.get(&slice.service_name()).into_iter().flatten();
        let mut known = siblings.filter(|one| one.name == slice.name);
        known.any(|known| known.ignored == slice.ignored)
    }

    fn delete_slice(&mut self, name: &ObjectName) {
        self.refusals.forget_slice(name);
        if let Some(owner) = self.slice_owners.remove(name) {
            self.detach_slice(&owner, name);
        }
    }

    fn detach_slice(&mut self, owner: &Arc<str>, name: &ObjectName) {
        let owner = ObjectName {
            namespace: Arc::clone(&name.namespace),
            name: Arc::clone(owner),
        };
        if let Some(siblings) = self.slices.get_mut(&owner) {
            siblings.retain(|one| one.name.name != name.name);
            if siblings.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.touch(&owner);
    }

    fn put_node(&mut self, node: Node) {
        self.node_names.has_node();
        let old = mem::replace(&mut self.node, node);
        if (&old.name, &old.zone) != (&self.node.name, &self.node.zone) {
            self.dirty.extend(self.services.keys().cloned());
        }
    }

    /// Makes a service dirty, if there is such a service.
    fn touch(&mut self, name: &ObjectName) {
        if self.services.contains_key(name) {
            self.dirty.insert(name.clone());
        }
    }
}

/// What of a service's annotations is not understood.
fn ignored(service: &Service) -> impl Iterator<Item = Warning> {
    let all = service.asks.ignored.iter();
    all.map(|what| Warning::field_ignored("Service", &service.name, what))
}

fn ignored_of_slice(slice: &EndpointSlice) -> impl Iterator<Item = Warning> {
    let all = slice.ignored.iter();
    all.map(|what| Warning::field_ignored("EndpointSlice", &slice.name, what))
}

/// The ranges that restrict `family`: those of the family, unless one of them holds every address.
fn effective_ranges(ranges: &[Cidr], family: Family) -> Vec<Cidr> {
    let mut ranges: Vec<Cidr> = ranges
        .iter()
        .copied()
        .filter(|range| range.family() == family)
        .collect();
    if ranges.iter().any(|range| range.prefix() == 0) {
        return Vec::new();
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}
