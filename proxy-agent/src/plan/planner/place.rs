//! Ids, backends and slots for one service port, as far as there is room.
//!
//! What stands and is still wanted stays; what is new is taken in its order while there is room. A port without an id, or without slots
//! for its lists, is not served; one that is served already stays as it was then.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use proxy_common::abi::{BackendId, Extent};

use super::{LeftOut, Planner};
use crate::{
    model::{Balancing, Cidr, DesiredService, EndpointId},
    plan::{
        FrontendAt, Shortage,
        addresses::NodeAddresses,
        batch::Batch,
        departures::Free,
        ledger::Table,
        placed::{self, Filled, Frontends, Placed, Seat},
        spread::{self, Length, Member},
        tables::Tables,
    },
};

impl Planner {
    /// Finds what changes for one service port. `None` where it is not placed, and then nothing has changed.
    pub(super) fn place(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        desired: &DesiredService,
        before: Option<&Placed>,
        left_out: &mut LeftOut,
    ) -> Option<Placed> {
        let namespace = &desired.key.service.namespace;
        let mut placed = match before {
            Some(before) => Placed::new(before.id),
            None => match self.tables.take_service(namespace) {
                Ok(id) => Placed::new(id),
                Err(shortage) => {
                    left_out.ports += 1;
                    left_out.why.get_or_insert(shortage);
                    return None;
                }
            },
        };
        let endpoints_before = left_out.endpoints;
        let ids = self.place_backends(&mut placed, desired, before, left_out);
        let members = |endpoints: &[EndpointId]| -> Vec<Member<BackendId>> {
            let known = endpoints.iter().filter_map(|id| {
                let endpoint = desired.endpoint(*id);
                Some(Member {
                    socket: endpoint.socket(),
                    weight: endpoint.weight,
                    id: ids[id.0 as usize]?,
                })
            });
            known.collect()
        };
        let scopes = [
            members(&desired.internal.endpoints),
            members(&desired.external.endpoints),
            members(&desired.cluster),
        ];
        let old = before.map_or(&[][..], |before| &before.extents);
        match self.place_lists(namespace, old, desired.balancing, &scopes, left_out) {
            Ok((extents, [internal, external, short_circuit])) => {
                placed.extents = extents;
                placed.value = placed::value(desired, self.hz, internal, external, short_circuit);
            }
            Err(shortage) => {
                let new = self.give_up(namespace, before, &placed);
                left_out.endpoints = endpoints_before + new;
                left_out.ports += u32::from(before.is_none());
                left_out.why.get_or_insert(shortage);
                return None;
            }
        }
        placed.frontends = self.place_frontends(desired, before, left_out);
        placed.source_ranges = desired.source_ranges.clone();
        let none = BTreeSet::new();
        let before_ranges = before.map_or(&none, |before| &before.ranges);
        placed.ranges = fit_ranges(
            &mut self.tables,
            namespace,
            before_ranges,
            placed::ranges(
                &placed.source_ranges,
                &placed.frontends,
                &self.addresses.node,
            ),
            left_out,
        );
        self.commit(now, batch, namespace, before, &placed);
        Some(placed)
    }

    /// Extents with the lists of the scopes: the longest that there is room for.
    fn place_lists(
        &mut self,
        namespace: &Arc<str>,
        old: &[(Extent, Box<[BackendId]>)],
        how: Balancing,
        scopes: &[Vec<Member<BackendId>>; 3],
        left_out: &mut LeftOut,
    ) -> Result<(Filled, [Extent; 3]), Shortage> {
        let mut first = None;
        for length in Length::all() {
            let Some(lists) = lists(how, scopes, length) else {
                continue;
            };
            match place_extents(&mut self.tables, namespace, old, lists) {
                Ok(placed) => {
                    if let Some(shortage) = first {
                        left_out.lists += 1;
                        left_out.why.get_or_insert(shortage);
                    }
                    return Ok(placed);
                }
                Err(shortage) => {
                    first.get_or_insert(shortage);
                }
            }
        }
        // There is a list of full length of whatever there is.
        first.map_or_else(|| Ok(Default::default()), Err)
    }

    /// Gives every serving endpoint a backend, as far as there is room: its own, or a new one. Returns their ids.
    fn place_backends(
        &mut self,
        placed: &mut Placed,
        desired: &DesiredService,
        before: Option<&Placed>,
        left_out: &mut LeftOut,
    ) -> Vec<Option<BackendId>> {
        let namespace = &desired.key.service.namespace;
        let mut ids = vec![None; desired.endpoints.len()];
        let serving = placed::serving(desired);
        placed.backends.reserve_exact(serving.len());
        for (socket, flags, endpoint) in serving {
            let flags = placed::host_flag(flags, socket.ip(), &self.addresses.node);
            let (id, generation) = match before.and_then(|before| before.seat(socket)) {
                Some(seat) => (seat.id, seat.generation),
                None => match self.tables.take_backend(namespace) {
                    Ok(taken) => taken,
                    Err(shortage) => {
                        left_out.endpoints += 1;
                        left_out.why.get_or_insert(shortage);
                        continue;
                    }
                },
            };
            placed
                .backends
                .push(Seat::new(socket, flags, id, generation));
            ids[endpoint.0 as usize] = Some(id);
        }
        placed.backends.shrink_to_fit();
        ids
    }

    /// The frontends that there is room for: first those that stand, then ClusterIPs, node ports, and the rest.
    fn place_frontends(
        &mut self,
        desired: &DesiredService,
        before: Option<&Placed>,
        left_out: &mut LeftOut,
    ) -> Frontends {
        let namespace = &desired.key.service.namespace;
        let stands = |at: FrontendAt| before.is_some_and(|before| before.has_frontend(at));
        let (mut kept, mut new): (Frontends, Frontends) = placed::frontends(desired)
            .into_iter()
            .partition(|(at, _)| stands(*at));
        new.sort_by_key(|(_, kind)| *kind as u32);
        let (mut more, mut entries) = ([0_u32; 2], [0_u32; 2]);
        let (gone, gone_entries) = self.going_frontends(before, &kept);
        let mut promised = self.addresses.touched();
        for (at, kind) in new {
            let family = at.family() as usize;
            let refusal = placed::entries(kind) - 1;
            let entry = u32::from(self.tables.frontend(at).is_none());
            let fits = self.tables.fits_frontend(
                namespace,
                at.family(),
                (more[family] + 1 + refusal).saturating_sub(gone[family]),
                (entries[family] + entry).saturating_sub(gone_entries[family]),
                promised + refusal,
            );
            match fits {
                Ok(()) => {
                    more[family] += 1 + refusal;
                    entries[family] += entry;
                    promised += refusal;
                    kept.push((at, kind));
                }
                Err(shortage) => {
                    left_out.addresses += 1;
                    left_out.why.get_or_insert(shortage);
                }
            }
        }
        kept.sort_unstable_by_key(|(at, _)| *at);
        kept.shrink_to_fit();
        kept
    }

    /// What is charged for the frontends of each family that go, and how many entries that frees before others are written.
    fn going_frontends(&self, before: Option<&Placed>, kept: &Frontends) -> ([u32; 2], [u32; 2]) {
        let (mut gone, mut entries) = ([0; 2], [0; 2]);
        let Some(before) = before else {
            return (gone, entries);
        };
        let stays = |at: FrontendAt| kept.binary_search_by_key(&at, |(at, _)| *at).is_ok();
        for (at, kind) in before.frontends.iter().filter(|(at, _)| !stays(*at)) {
            gone[at.family() as usize] += placed::entries(*kind);
            let standing = self.tables.frontend(*at);
            let is_own = standing.is_some_and(|to| to.service() == before.id);
            entries[at.family() as usize] += u32::from(is_own);
        }
        (gone, entries)
    }

    /// Gives back the ids that a service took which cannot be placed; says how many backends these are.
    fn give_up(&mut self, namespace: &Arc<str>, before: Option<&Placed>, placed: &Placed) -> u32 {
        let mut new = 0;
        for seat in &placed.backends {
            if before.is_none_or(|before| before.seat(seat.socket()).is_none()) {
                self.tables.give_back(namespace, Free::Backend(seat.id));
                new += 1;
            }
        }
        if before.is_none() {
            self.tables.give_back(namespace, Free::Service(placed.id));
        }
        new
    }
}

/// The lists of the scopes, of this length where one has such a list, else of the next longer one. `None` where none has.
fn lists(
    how: Balancing,
    scopes: &[Vec<Member<BackendId>>; 3],
    length: Length,
) -> Option<[Vec<BackendId>; 3]> {
    let mut has_any = false;
    let mut lists: [Vec<BackendId>; 3] = Default::default();
    for (place, members) in scopes.iter().enumerate() {
        if let Some(same) = scopes[..place].iter().position(|other| other == members) {
            lists[place] = lists[same].clone();
            continue;
        }
        lists[place] = match spread::list(how, members, length) {
            Some(list) => {
                has_any = true;
                list
            }
            None => spread::list(how, members, Length::Least)
                .or_else(|| spread::list(how, members, Length::Full))?,
        };
    }
    has_any.then_some(lists)
}

/// An extent for each list: one that holds it already, or a new one. On a shortage none is taken.
fn place_extents(
    tables: &mut Tables,
    namespace: &Arc<str>,
    old: &[(Extent, Box<[BackendId]>)],
    lists: [Vec<BackendId>; 3],
) -> Result<(Filled, [Extent; 3]), Shortage> {
    let mut extents = Filled::new();
    let mut scopes = [Extent::default(); 3];
    for (scope, list) in scopes.iter_mut().zip(lists) {
        if list.is_empty() {
            continue;
        }
        let known = |(_, held): &&(Extent, Box<[BackendId]>)| **held == *list;
        if let Some((extent, _)) = extents.iter().find(known) {
            *scope = *extent;
            continue;
        }
        let found = match old.iter().find(known) {
            Some((extent, _)) => Ok(*extent),
            None => tables.take_slots(namespace, list.len() as u32),
        };
        match found {
            Ok(extent) => {
                *scope = extent;
                extents.reserve_exact(1);
                extents.push((extent, list.into_boxed_slice()));
            }
            Err(shortage) => {
                for (extent, _) in extents {
                    if !old.iter().any(|(kept, _)| *kept == extent) {
                        tables.give_back(namespace, Free::Slots(extent));
                    }
                }
                return Err(shortage);
            }
        }
    }
    Ok((extents, scopes))
}

/// The ranges that there is room for. Without one, clients in it are not admitted.
pub(super) fn fit_ranges(
    tables: &mut Tables,
    namespace: &Arc<str>,
    before: &BTreeSet<Cidr>,
    wanted: BTreeSet<Cidr>,
    left_out: &mut LeftOut,
) -> BTreeSet<Cidr> {
    let fits = |range: &Cidr| {
        if before.contains(range) {
            return true;
        }
        match tables.take_range(namespace, range.family()) {
            Ok(()) => true,
            Err(shortage) => {
                left_out.ranges += 1;
                left_out.why.get_or_insert(shortage);
                false
            }
        }
    };
    wanted.into_iter().filter(fits).collect()
}

/// The ranges that a service port wants now, of those that it stands with.
pub(super) fn wanted_ranges(placed: &Placed, node: &NodeAddresses) -> BTreeSet<Cidr> {
    placed::ranges(&placed.source_ranges, &placed.frontends, node)
}

/// The table of a range.
pub(super) fn table_of(range: Cidr) -> Table {
    Table::Ranges(range.family())
}
