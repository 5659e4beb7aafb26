//! A planner over maps that an earlier process left.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use proxy_common::abi::{FrontendKind, FrontendRef};

use super::{Limits, Planner};
use crate::{
    model::DesiredService,
    plan::{
        FrontendAt, Image, Op,
        addresses::{Addresses, NodeAddresses},
        departures::Departures,
        extents::Extents,
        gate::Gate,
        ids::{BackendIds, Ids},
        placed::{self, Placed},
    },
};

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

    /// The service of the image that has one of the frontends of `desired`, and so is it.
    pub(super) fn claim(&mut self, desired: &DesiredService) -> Option<Placed> {
        if self.unclaimed.is_empty() {
            return None;
        }
        placed::frontends(desired)
            .keys()
            .find_map(|at| self.unclaimed.remove(&self.frontends.get(at)?.service()))
    }
}
