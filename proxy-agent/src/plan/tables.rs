//! The tables with their room: which ids and slots are free, which frontends stand, and who may have more.
//!
//! In: wishes, each in the name of a namespace. Out: what was taken, or the [`Shortage`] that stands in the way. The rule: what is taken
//! fits into the tables as they are or, up to the limits, as they are about to be: [`Tables::room`] says how large that is.

use std::{collections::HashMap, fmt, mem, sync::Arc};

use proxy_common::abi::{BackendId, Extent, FrontendRef, Generation, ServiceId};

use super::{
    FrontendAt,
    departures::Free,
    extents::Extents,
    ids::{BackendIds, Ids},
    ledger::{Ledger, Limits, Room, Table},
};
use crate::model::Family;

/// Tables do not begin to grow from less than this.
const LEAST: u32 = 1024;

/// The namespace of what nothing desired has claimed.
pub const NOBODY: &str = "";

/// Why there is no room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shortage {
    /// The namespace has its share.
    Namespace(Table),
    /// What is left of the table is for namespaces that have less.
    Kept(Table),
    /// The table has grown as far as it may.
    Full(Table),
}

/// The flag that bounds a table.
const fn flag(table: Table) -> &'static str {
    match table {
        Table::Backends | Table::Slots => "--max-backends",
        Table::Services | Table::Frontends(_) | Table::Ranges(_) => "--max-services",
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(table) => {
                write!(
                    f,
                    "the namespace has its share of {table} (--namespace-share)"
                )
            }
            Self::Kept(table) => {
                let flag = flag(*table);
                write!(
                    f,
                    "what is left for {table} is kept for namespaces that have fewer ({flag})"
                )
            }
            Self::Full(table) => {
                write!(f, "there is no room for more {table} ({})", flag(*table))
            }
        }
    }
}

#[derive(Debug)]
pub struct Tables {
    limits: Limits,
    room: Room,
    pub ledger: Ledger,
    services: Ids,
    backends: BackendIds,
    slots: Extents,
    /// What stands in the frontends tables.
    frontends: HashMap<FrontendAt, FrontendRef>,
    /// How many of them, by family.
    frontend_counts: [u32; 2],
    /// Something was refused since the last [`Self::take_crowded`] that others' entries stood in the way of, or nobody's.
    is_crowded: bool,
}

impl Tables {
    pub fn new(
        limits: Limits,
        room: Room,
        services: Ids,
        backends: BackendIds,
        slots: Extents,
        frontends: HashMap<FrontendAt, FrontendRef>,
    ) -> Self {
        let mut frontend_counts = [0; 2];
        for at in frontends.keys() {
            frontend_counts[at.family() as usize] += 1;
        }
        Self {
            limits,
            room,
            ledger: Ledger::new(limits),
            services,
            backends,
            slots,
            frontends,
            frontend_counts,
            is_crowded: false,
        }
    }

    /// How large the tables have to be for what was taken.
    pub const fn room(&self) -> Room {
        self.room
    }

    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.ledger.set_limits(limits);
    }

    pub fn take_service(&mut self, namespace: &Arc<str>) -> Result<ServiceId, Shortage> {
        self.may_have(namespace, Table::Services, 1)?;
        let id = loop {
            match self.services.take() {
                Some(id) => break ServiceId(id),
                None => self.grow(Table::Services)?,
            }
        };
        self.ledger.charge(namespace, Table::Services, 1);
        Ok(id)
    }

    /// An id and its generation.
    pub fn take_backend(
        &mut self,
        namespace: &Arc<str>,
    ) -> Result<(BackendId, Generation), Shortage> {
        self.may_have(namespace, Table::Backends, 1)?;
        let taken = loop {
            match self.backends.take() {
                Some(taken) => break taken,
                None => self.grow(Table::Backends)?,
            }
        };
        self.ledger.charge(namespace, Table::Backends, 1);
        Ok(taken)
    }

    pub fn take_slots(&mut self, namespace: &Arc<str>, len: u32) -> Result<Extent, Shortage> {
        self.may_have(namespace, Table::Slots, len)?;
        let extent = loop {
            match self.slots.take(len) {
                Some(extent) => break extent,
                None => self.grow(Table::Slots)?,
            }
        };
        self.ledger.charge(namespace, Table::Slots, len);
        Ok(extent)
    }

    /// May the namespace have `more` frontends of a family, which are `entries` more in the table? `promised` are entries that may have
    /// to be written besides.
    pub fn fits_frontend(
        &mut self,
        namespace: &Arc<str>,
        family: Family,
        more: u32,
        entries: u32,
        promised: u32,
    ) -> Result<(), Shortage> {
        let table = Table::Frontends(family);
        let wanted = self.frontend_counts[family as usize] + entries + promised;
        self.has_share(namespace, table, more, wanted)?;
        while wanted > self.room.of(table) {
            self.grow(table)?;
        }
        Ok(())
    }

    /// The same for source ranges. One that goes makes room only when it is gone.
    pub fn take_range(&mut self, namespace: &Arc<str>, family: Family) -> Result<(), Shortage> {
        let table = Table::Ranges(family);
        self.may_have(namespace, table, 1)?;
        while self.ledger.used(table) + 1 > self.room.of(table) {
            self.grow(table)?;
        }
        self.ledger.charge(namespace, table, 1);
        Ok(())
    }

    /// What was let go may be used again.
    pub fn give_back(&mut self, namespace: &Arc<str>, free: Free) {
        match free {
            Free::Service(id) => {
                self.services.give_back(id.0);
                self.ledger.give_back(namespace, Table::Services, 1);
            }
            Free::Backend(id) => {
                self.backends.give_back(id);
                self.ledger.give_back(namespace, Table::Backends, 1);
            }
            Free::Slots(extent) => {
                self.slots.give_back(extent);
                self.ledger.give_back(namespace, Table::Slots, extent.len);
            }
        }
    }

    pub fn frontend(&self, at: FrontendAt) -> Option<FrontendRef> {
        self.frontends.get(&at).copied()
    }

    /// Is there room for one more frontend of this family, in the table as it is?
    pub const fn has_room_for_frontend(&self, family: Family) -> bool {
        self.frontend_counts[family as usize] < self.room.of(Table::Frontends(family))
    }

    /// Says whether that is a change.
    pub fn set_frontend(&mut self, at: FrontendAt, to: FrontendRef) -> bool {
        let before = self.frontends.insert(at, to);
        if before.is_none() {
            self.frontend_counts[at.family() as usize] += 1;
        }
        before != Some(to)
    }

    /// Says whether it was there.
    pub fn drop_frontend(&mut self, at: FrontendAt) -> bool {
        let was_there = self.frontends.remove(&at).is_some();
        if was_there {
            self.frontend_counts[at.family() as usize] -= 1;
        }
        was_there
    }

    /// Was something refused since the last call that would have found room without others' entries?
    pub fn take_crowded(&mut self) -> bool {
        mem::take(&mut self.is_crowded)
    }

    /// May the namespace have `more` entries of a table that holds what the ledger says?
    fn may_have(&mut self, namespace: &str, table: Table, more: u32) -> Result<(), Shortage> {
        self.has_share(namespace, table, more, self.ledger.used(table) + more)
    }

    /// The same for a table that holds `filled` entries then.
    fn has_share(
        &mut self,
        namespace: &str,
        table: Table,
        more: u32,
        filled: u32,
    ) -> Result<(), Shortage> {
        let left = self.ledger.share_left(namespace, table);
        if left < more {
            return Err(Shortage::Namespace(table));
        }
        // What nothing has claimed yet may be the namespace's own.
        let unclaimed = self.ledger.of(NOBODY, table);
        if more > 0 && left < more.saturating_add(unclaimed) {
            self.is_crowded = true;
            return Err(Shortage::Namespace(table));
        }
        let has = self.ledger.of(namespace, table) + more;
        // Who wants no more may do what he does in its place. Beyond the whole table there is no room for anybody.
        let kept =
            self.limits.filled_for(has, table).saturating_add(1)..=self.limits.room.of(table);
        if more > 0 && kept.contains(&filled) {
            self.is_crowded = true;
            return Err(Shortage::Kept(table));
        }
        Ok(())
    }

    fn grow(&mut self, table: Table) -> Result<(), Shortage> {
        let limit = self.limits.room;
        let (size, limit) = match table {
            Table::Backends | Table::Slots => (&mut self.room.backends, limit.backends),
            Table::Services | Table::Frontends(_) | Table::Ranges(_) => {
                (&mut self.room.services, limit.services)
            }
        };
        if *size >= limit {
            self.is_crowded = true;
            return Err(Shortage::Full(table));
        }
        *size = size.saturating_mul(2).max(LEAST).min(limit);
        self.services.raise(self.room.services);
        self.backends.raise(self.room.backends);
        self.slots.raise(self.room.slots());
        Ok(())
    }
}
