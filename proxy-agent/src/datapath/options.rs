//! What a caller chooses when the datapath is loaded.

use std::path::PathBuf;

use super::{TcMode, XdpMode};
use crate::plan::Room;

/// How to load the object.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bpffs directory under which maps and links are kept, so that they outlive the process; `None` for a datapath that ends with its handle.
    pub pin: Option<PathBuf>,
    /// Those that the tables begin with.
    pub sizes: Sizes,
    /// Tables of an earlier process that are larger than `sizes` stay as large, up to this.
    pub limits: Option<Room>,
    pub xdp: XdpMode,
    pub tc: TcMode,
}

/// How much each kind of thing the maps hold. The sizes of all maps derive from these three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Connections that are tracked per address family.
    pub connections: u32,
    /// Endpoints of service ports, both families together.
    pub backends: u32,
    /// Service ports, both families together.
    pub services: u32,
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
    /// Those that tables begin with which may grow to `limits`: an eighth of that, but not less than a small cluster needs.
    pub fn first(connections: u32, limits: &Room) -> Self {
        let part = |limit: u32, least: u32| (limit / 8).max(least).min(limit);
        Self {
            connections,
            backends: part(limits.backends, 4096),
            services: part(limits.services, 1024),
        }
    }

    /// The tables of services and endpoints.
    pub const fn room(&self) -> Room {
        Room {
            services: self.services,
            backends: self.backends,
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

    /// Entries of the table of unconfirmed flows, the budget of a flood.
    pub const fn pending(&self) -> u32 {
        let quarter = self.flows() / 4;
        if quarter < 1024 { 1024 } else { quarter }
    }

    /// Clients with session affinity, per family.
    pub const fn affinity(&self) -> u32 {
        let half = self.connections / 2;
        if half < 1024 { 1024 } else { half }
    }
}
