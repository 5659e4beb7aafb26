//! The choices of a caller who loads the datapath.

use std::path::PathBuf;

use super::{Facts, TcMode, XdpMode};
use crate::{memory::Allowance, plan::Room};

/// How to load the object.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bpffs directory under which maps and links are kept, so that they outlive the process; `None` for a datapath that ends with its handle.
    pub pin: Option<PathBuf>,
    /// Those that the tables begin with.
    pub sizes: Sizes,
    /// Tables of an earlier process that are larger than `sizes` stay as large, up to this.
    pub limits: Option<Room>,
    /// What this process may have, with the maps that it makes.
    pub allowance: Option<Allowance>,
    pub xdp: XdpMode,
    pub tc: TcMode,
}

/// How much each kind of thing the maps hold. The sizes of all maps derive from these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Connections that are tracked per address family.
    pub connections: u32,
    /// Endpoints of service ports, both families together.
    pub backends: u32,
    /// Service ports, both families together.
    pub services: u32,
    /// Network devices.
    pub devices: u32,
    /// Local addresses of one family.
    pub addresses: u32,
}

/// How far the tables of services and endpoints may grow by default.
pub const LARGEST: Room = Room {
    services: 262_144,
    backends: 1_048_576,
};

impl Default for Sizes {
    fn default() -> Self {
        Self::first(131_072, &LARGEST)
    }
}

impl Sizes {
    /// What a small cluster needs: tables begin with that, if they may grow as far.
    pub const LEAST: Room = Room {
        services: 1024,
        backends: 4096,
    };

    /// Those that tables begin with which may grow to `limits`: an eighth of that, but not less than a small cluster needs.
    pub fn first(connections: u32, limits: &Room) -> Self {
        let part = |limit: u32, least: u32| (limit / 8).max(least).min(limit);
        Self {
            connections,
            backends: part(limits.backends, Self::LEAST.backends),
            services: part(limits.services, Self::LEAST.services),
            devices: 4096,
            addresses: 4096,
        }
    }

    /// The tables of services and endpoints.
    pub const fn room(&self) -> Room {
        Room {
            services: self.services,
            backends: self.backends,
        }
    }

    /// The same with room for this node and for what it grows by. Nobody chooses that: the node has what it has.
    #[must_use]
    pub fn with_room_for(self, facts: &Facts) -> Self {
        let addresses = facts.local4.len().max(facts.local6.len());
        Self {
            devices: room(self.devices, facts.devices.len()),
            addresses: room(self.addresses, addresses),
            ..self
        }
    }

    /// These sizes, or where they are larger those that were `found`, up to `limits`.
    pub(super) fn grown(self, found: Option<Room>, limits: &Option<Room>) -> Self {
        let (Some(found), Some(limits)) = (found, limits) else {
            return self;
        };
        let larger = |own: u32, found: u32, limit: u32| own.max(found.min(limit));
        Self {
            services: larger(self.services, found.services, limits.services),
            backends: larger(self.backends, found.backends, limits.backends),
            ..self
        }
    }

    /// Entries of a flow table: two per connection, one for each direction.
    pub const fn flows(&self) -> u32 {
        self.connections.saturating_mul(2)
    }

    /// Entries of a table of flows of datagrams.
    pub const fn datagrams(&self) -> u32 {
        self.pending()
    }

    /// Places of all CPUs' queues of closed connections, on a machine with so many.
    pub fn closed(&self, cpus: u64) -> u32 {
        cpus as u32 * closed_room(self.connections, cpus)
    }

    /// Entries of the table of unconfirmed flows, the budget of a flood.
    pub const fn pending(&self) -> u32 {
        let quarter = self.flows() / 4;
        if quarter < 1024 { 1024 } else { quarter }
    }

    /// New flows that one source may have waiting for an answer: a quarter of those that the table of unconfirmed flows has room for.
    pub const fn share(&self) -> u32 {
        self.pending() / 2 / 4
    }

    /// Clients with session affinity, per family.
    pub const fn affinity(&self) -> u32 {
        let half = self.connections / 2;
        if half < 1024 { 1024 } else { half }
    }
}

/// Places of each CPU's queue of closed connections: those of all CPUs together are half of the connections that there is room for.
pub(super) fn closed_room(connections: u32, cpus: u64) -> u32 {
    let share = u64::from(connections) / 2 / cpus.max(1);
    share.clamp(1, 4096) as u32
}

/// `room` where that is enough for so many, else room for half as many again.
fn room(room: u32, many: usize) -> u32 {
    let many = u32::try_from(many).unwrap_or(u32::MAX);
    if many <= room {
        return room;
    }
    let ample = many.saturating_add(many / 2);
    ample.checked_next_power_of_two().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_the_node_and_never_shrinks() {
        for (before, many, after) in [
            (4096, 0, 4096),
            (4096, 4096, 4096),
            (4096, 4097, 8192),
            (8192, 12_000, 32_768),
            (32_768, 10, 32_768),
        ] {
            assert_eq!(room(before, many), after, "{many} in {before}");
        }
    }
}
