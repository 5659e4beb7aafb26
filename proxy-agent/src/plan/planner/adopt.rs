//! A planner over maps that an earlier process left.
//!
//! In: what the maps hold. Out: a planner whose first writes make them one whole. The one rule: nothing is taken for granted of one
//! map because another one has it. Each map may have been made anew: a version of another layout, a pin that somebody removed. What
//! the others call for is written into it again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use proxy_common::abi::{FrontendKind, FrontendRef};

use super::{Limits, Planner};
use crate::{
    model::{DesiredService, Family},
    plan::{
        FrontendAt, Image, Op, Room,
        addresses::{Addresses, NodeAddresses},
        departures::Departures,
        extents::Extents,
        gate::Gate,
        ids::{BackendIds, Ids},
        ledger::Table,
        placed::{self, Placed},
        tables::{NOBODY, Tables},
    },
};

impl Planner {
    /// A planner over tables of the size `room` that hold `image`. Ids and slots in use stay with the services that have them.
    pub fn new(
        limits: Limits,
        room: Room,
        hz: u32,
        node: NodeAddresses,
        image: &Image,
        now: Instant,
    ) -> Self {
        let mut unclaimed = placed::read(image);
        let mut extents = Extents::new(room.slots());
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
        // Whose all that is, is not known yet.
        let nobody: Arc<str> = Arc::from(NOBODY);
        let mut gate = Gate::new(&image.gate);
        for at in frontends.keys() {
            gate.open_frontend(*at);
        }
        let mut departures = Departures::default();
        let mut used = BTreeSet::new();
        let mut lost = 0;
        for (&id, &entry) in &image.backends {
            gate.open_backend(entry.socket);
            if entry.flags.is_empty() {
                continue;
            }
            used.insert(id);
            let owned = unclaimed
                .get(&entry.service)
                .and_then(|placed| placed.seat(entry.socket))
                .is_some_and(|seat| seat.id == id);
            if !owned {
                departures.backend(now, &nobody, id, entry);
                lost += 1;
            }
        }
        let seen = image.backends.iter();
        let seen = seen.map(|(id, entry)| (*id, entry.generation));
        let mut tables = Tables::new(
            limits,
            room,
            Ids::new(room.services, image.services.keys().map(|id| id.0)),
            BackendIds::new(room.backends, &used, seen),
            extents,
            frontends,
        );
        // What stands already needs no room.
        for (addr, is_refused) in addresses.take_touched() {
            if tables.frontend(FrontendAt::WholeAddress(addr)).is_some() != is_refused {
                addresses.touch(addr);
            }
        }
        tables.ledger.charge(&nobody, Table::Backends, lost);
        for placed in unclaimed.values() {
            charge(&mut tables, &nobody, placed);
        }
        Self {
            hz,
            services: HashMap::new(),
            tables,
            addresses,
            gate,
            departures,
            left_out: BTreeMap::new(),
            gone_ranges: Vec::new(),
            has_freed: false,
            strays,
            unclaimed,
            nobody,
        }
    }

    /// The service of the image that has one of the frontends of `desired`, and so is it.
    pub(super) fn claim(&mut self, desired: &DesiredService) -> Option<Placed> {
        if self.unclaimed.is_empty() {
            return None;
        }
        let placed = placed::frontends(desired).iter().find_map(|(at, _)| {
            let standing = self.tables.frontend(*at)?;
            self.unclaimed.remove(&standing.service())
        })?;
        let nobody = Arc::clone(&self.nobody);
        for (table, amount) in amounts(&placed) {
            self.tables.ledger.give_back(&nobody, table, amount);
        }
        charge(&mut self.tables, &desired.key.service.namespace, &placed);
        Some(placed)
    }
}

fn charge(tables: &mut Tables, namespace: &Arc<str>, placed: &Placed) {
    for (table, amount) in amounts(placed) {
        tables.ledger.charge(namespace, table, amount);
    }
}

/// What a service port has of each table.
fn amounts(placed: &Placed) -> Vec<(Table, u32)> {
    let slots = placed.extents.iter().map(|(extent, _)| extent.len).sum();
    let mut all = vec![
        (Table::Services, 1),
        (Table::Backends, placed.backends.len() as u32),
        (Table::Slots, slots),
    ];
    for family in [Family::Ipv4, Family::Ipv6] {
        let frontends = placed::entries_of(&placed.frontends, family);
        let ranges = placed.ranges.iter();
        let ranges = ranges.filter(|range| range.family() == family).count();
        all.push((Table::Frontends(family), frontends));
        all.push((Table::Ranges(family), ranges as u32));
    }
    all
}
