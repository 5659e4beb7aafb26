//! Ids, backends and slots for one service port.

use std::{collections::HashMap, time::Instant};

use proxy_common::abi::Extent;

use super::{Planner, Shortage};
use crate::{
    model::{DesiredService, EndpointId},
    plan::{
        BackendEntry,
        batch::Batch,
        placed::{self, Filled, Placed},
    },
};

impl Planner {
    /// Finds what changes for one service port. On a shortage nothing has changed.
    pub(super) fn place(
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
}
