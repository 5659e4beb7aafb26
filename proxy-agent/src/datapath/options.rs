//! What a caller chooses when the datapath is loaded.

use std::path::PathBuf;

use super::{TcMode, XdpMode};

/// How to load the object.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bpffs directory under which maps and links are kept, so that they outlive the process; `None` for a datapath that ends with its handle.
    pub pin: Option<PathBuf>,
    pub sizes: Sizes,
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

impl Default for Sizes {
    fn default() -> Self {
        Self {
            connections: 131_072,
            backends: 131_072,
            services: 65_536,
        }
    }
}

impl Sizes {
    /// Elements of the slot array: every backend in three scopes, and room for extents that wait to be freed.
    pub const fn slots(&self) -> u32 {
        self.backends.saturating_mul(4)
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

    /// Frontends of one family: ClusterIP and NodePort of each service port, and external addresses.
    pub const fn frontends(&self) -> u32 {
        self.services.saturating_mul(4)
    }

    /// Clients with session affinity, per family.
    pub const fn affinity(&self) -> u32 {
        let half = self.connections / 2;
        if half < 1024 { 1024 } else { half }
    }
}
