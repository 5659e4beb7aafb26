//! The shape of every map that outlives the agent, in the sizes of this agent.
//!
//! In: the sizes, and the table of maps ([`proxy_common::abi::map`]). Out: a [`Shape`] per map. The one rule: a pinned map of another
//! layout is never used, because aya would take it without a look and the programs would read it as what it is not.

use anyhow::Result;
use aya::maps::{MapInfo, MapType};
pub use proxy_common::abi::map::Role;
use proxy_common::abi::map::{self, Entries, Kind, NO_PREALLOC, Row, Size};

use super::{Sizes, cpus};

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub role: Role,
    /// The version of the ABI since which the map has this layout, and what it holds this meaning.
    pub since: u32,
    pub kind: MapType,
    pub key: u32,
    pub value: u32,
    pub max_entries: u32,
    /// Does the kernel make its elements beforehand?
    pub is_preallocated: bool,
}

/// The shape of a map that exists.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pinned {
    pub kind: MapType,
    pub key: u32,
    pub value: u32,
    pub max_entries: u32,
}

impl Pinned {
    /// Of what is pinned in the place of a map and is none.
    pub const NO_MAP: Self = Self {
        kind: MapType::Unspecified,
        key: 0,
        value: 0,
        max_entries: 0,
    };

    /// An error for a kind of map that no agent has.
    pub fn of(info: &MapInfo) -> Result<Self> {
        Ok(Self {
            kind: info.map_type()?,
            key: info.key_size(),
            value: info.value_size(),
            max_entries: info.max_entries(),
        })
    }
}

/// The shapes of all maps that are pinned.
pub fn shapes(sizes: &Sizes) -> Vec<Shape> {
    map::all()
        .filter(|row| row.role.is_pinned())
        .filter_map(|row| shape(&row, sizes))
        .collect()
}

/// `None` for a map whose layout is the programs' own.
fn shape(row: &Row, sizes: &Sizes) -> Option<Shape> {
    Some(Shape {
        name: row.name,
        role: row.role,
        since: row.since,
        kind: kind(row.kind),
        key: row.key?.size,
        value: row.value?.size,
        max_entries: match row.entries {
            Entries::Fixed(entries) => entries,
            Entries::Chosen(size) => chosen(size, sizes),
        },
        is_preallocated: row.flags & NO_PREALLOC == 0,
    })
}

const fn kind(kind: Kind) -> MapType {
    match kind {
        Kind::Hash => MapType::Hash,
        Kind::Array => MapType::Array,
        Kind::ProgramArray => MapType::ProgramArray,
        Kind::PerCpuArray => MapType::PerCpuArray,
        Kind::LruHash => MapType::LruHash,
        Kind::LpmTrie => MapType::LpmTrie,
    }
}

fn chosen(size: Size, sizes: &Sizes) -> u32 {
    match size {
        Size::Services => sizes.services,
        Size::Backends => sizes.backends,
        Size::Slots => sizes.room().slots(),
        Size::Frontends => sizes.room().frontends(),
        Size::Ranges => sizes.room().ranges(),
        Size::Devices => sizes.devices,
        Size::Addresses => sizes.addresses,
        Size::Flows => sizes.flows(),
        Size::Datagrams => sizes.datagrams(),
        Size::Closed => sizes.closed(cpus()),
        Size::Queues => 2 * cpus() as u32,
        Size::Pending => sizes.pending(),
        Size::Affinity => sizes.affinity(),
    }
}

impl Shape {
    /// Are keys and values those of a map that exists?
    pub fn has_layout_of(&self, found: &Pinned) -> bool {
        (self.kind, self.key, self.value) == (found.kind, found.key, found.value)
    }

    #[cfg(test)]
    pub const fn pinned(&self) -> Pinned {
        Pinned {
            kind: self.kind,
            key: self.key,
            value: self.value,
            max_entries: self.max_entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_of_a_default_agent_stay_within_their_memory() {
        let bytes: u64 = shapes(&Sizes::default())
            .iter()
            .filter(|shape| shape.kind != MapType::PerCpuArray)
            .map(|shape| u64::from(shape.key + shape.value) * u64::from(shape.max_entries))
            .sum();
        assert!(bytes < 110 << 20, "{} MiB", bytes >> 20);
    }
}
