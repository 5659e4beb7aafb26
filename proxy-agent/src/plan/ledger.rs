//! Counts how much room each namespace has in each table.
//!
//! Each table has a size now and one that it may grow to, and of that a namespace may have a share. Sizes of all tables follow from two
//! numbers. The rule: an entry is charged to its namespace from before it is written until it may be used again, so that neither a
//! wish nor a fast change of wishes takes what is others'.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::model::Family;

/// Sizes of the tables. All follow from these two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Service ports, both families together.
    pub services: u32,
    /// Endpoints of service ports, both families together.
    pub backends: u32,
}

impl Room {
    /// Elements of the slot array: every backend in three scopes, and room for extents that wait to be freed.
    pub const fn slots(&self) -> u32 {
        self.backends.saturating_mul(4)
    }

    /// Frontends of one family: ClusterIP and NodePort of each service port, and external addresses.
    pub const fn frontends(&self) -> u32 {
        self.services.saturating_mul(4)
    }

    /// Source ranges of one family.
    pub const fn ranges(&self) -> u32 {
        self.services.saturating_mul(4)
    }

    pub const fn of(&self, table: Table) -> u32 {
        match table {
            Table::Services => self.services,
            Table::Backends => self.backends,
            Table::Slots => self.slots(),
            Table::Frontends(_) => self.frontends(),
            Table::Ranges(_) => self.ranges(),
        }
    }

    /// Is nothing smaller than in `other`?
    pub const fn holds(&self, other: &Self) -> bool {
        self.services >= other.services && self.backends >= other.backends
    }
}

/// A table that a plan writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    Services,
    Backends,
    Slots,
    Frontends(Family),
    Ranges(Family),
}

impl Table {
    const COUNT: usize = 7;

    const fn index(self) -> usize {
        match self {
            Self::Services => 0,
            Self::Backends => 1,
            Self::Slots => 2,
            Self::Frontends(Family::Ipv4) => 3,
            Self::Frontends(Family::Ipv6) => 4,
            Self::Ranges(Family::Ipv4) => 5,
            Self::Ranges(Family::Ipv6) => 6,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "service ports",
            Self::Backends => "endpoints",
            Self::Slots => "lists of endpoints",
            Self::Frontends(Family::Ipv4) => "IPv4 addresses of services",
            Self::Frontends(Family::Ipv6) => "IPv6 addresses of services",
            Self::Ranges(Family::Ipv4) => "IPv4 source ranges",
            Self::Ranges(Family::Ipv6) => "IPv6 source ranges",
        })
    }
}

/// A table's last part is kept for namespaces that have little: one in so many entries.
const KEPT: u32 = 8;
/// So little: one in so many entries of the table. Eight namespaces find that much, whatever the others have.
const LITTLE: u32 = 64;

/// How far the tables may grow, and how much of that one namespace may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub room: Room,
    /// In percent.
    pub namespace_share: u32,
}

impl Limits {
    /// The same for tables that keep the size `room`.
    #[must_use]
    pub const fn without_growth(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// What one namespace may have of a table.
    pub fn of_namespace(&self, table: Table) -> u32 {
        let part = u64::from(self.room.of(table)) * u64::from(self.namespace_share.min(100)) / 100;
        part as u32
    }

    /// How far a table may be filled for a namespace that has so many of its entries then.
    pub const fn filled_for(&self, has: u32, table: Table) -> u32 {
        let room = self.room.of(table);
        if self.namespace_share >= 100 || has <= room / LITTLE {
            room
        } else {
            room - room / KEPT
        }
    }
}

type Amounts = [u32; Table::COUNT];

#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    namespaces: HashMap<Arc<str>, Amounts>,
    total: Amounts,
}

impl Ledger {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            namespaces: HashMap::new(),
            total: Amounts::default(),
        }
    }

    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How much more of a table its namespace may have, whatever the others have.
    pub fn share_left(&self, namespace: &str, table: Table) -> u32 {
        if self.limits.namespace_share >= 100 {
            return u32::MAX;
        }
        let has = self.of(namespace, table);
        self.limits.of_namespace(table).saturating_sub(has)
    }

    /// How many entries of a table its namespace has, or was promised.
    pub fn of(&self, namespace: &str, table: Table) -> u32 {
        self.namespaces
            .get(namespace)
            .map_or(0, |amounts| amounts[table.index()])
    }

    /// Does a namespace have anything at all?
    pub fn has_any(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// How many entries a table has, or has promised.
    pub const fn used(&self, table: Table) -> u32 {
        self.total[table.index()]
    }

    pub fn charge(&mut self, namespace: &Arc<str>, table: Table, amount: u32) {
        if amount == 0 {
            return;
        }
        self.total[table.index()] += amount;
        let amounts = match self.namespaces.get_mut(&**namespace) {
            Some(known) => known,
            None => self.namespaces.entry(Arc::clone(namespace)).or_default(),
        };
        amounts[table.index()] += amount;
    }

    pub fn give_back(&mut self, namespace: &Arc<str>, table: Table, amount: u32) {
        self.total[table.index()] -= amount;
        if let Some(amounts) = self.namespaces.get_mut(&**namespace) {
            amounts[table.index()] -= amount;
            if *amounts == Amounts::default() {
                self.namespaces.remove(&**namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_share_and_no_more() {
        let mut ledger = Ledger::new(Limits {
            room: Room {
                services: 10,
                backends: 100,
            },
            namespace_share: 50,
        });
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        ledger.charge(&a, Table::Backends, 45);
        ledger.charge(&b, Table::Backends, 1);
        assert_eq!(ledger.share_left("a", Table::Backends), 5);
        assert_eq!(ledger.share_left("b", Table::Backends), 49);
        assert_eq!(ledger.share_left("c", Table::Slots), 200);
        assert_eq!(ledger.used(Table::Backends), 46);
        ledger.give_back(&a, Table::Backends, 45);
        assert_eq!(ledger.share_left("a", Table::Backends), 50);
        assert_eq!(ledger.namespaces.len(), 1, "who has nothing is forgotten");
    }

    #[test]
    fn the_last_eighth_of_a_table_is_for_those_who_have_little() {
        let limits = |namespace_share| Limits {
            room: Room {
                services: 640,
                backends: 64,
            },
            namespace_share,
        };
        for (has, share, filled) in [
            (1, 50, 640),
            (10, 50, 640),
            (11, 50, 560),
            (300, 50, 560),
            (640, 100, 640),
        ] {
            let fills = limits(share).filled_for(has, Table::Services);
            assert_eq!(fills, filled, "{has} of {share} %");
        }
    }
}
