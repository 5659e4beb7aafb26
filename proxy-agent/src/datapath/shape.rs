//! The shape of every map, as this version of the agent knows it.
//!
//! In: the sizes. Out: a [`Shape`] per map. The one rule: a pinned map of another layout is never used, because aya would take it
//! without a look and the programs would read it as what it is not.

use std::mem::size_of;

use anyhow::Result;
use aya::maps::{MapInfo, MapType, lpm_trie::Key};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, Config, Counter, Device, Flow, FlowKey, FragmentKey,
        FragmentPorts, FrontendKey, FrontendRef, LocalAddr, NextHop, RangeKey, SLOW_PROGRAMS,
        Service, ServiceCounter, Share, gate, names,
    },
    addr::{Ip4, Ip6},
    edge::hook::Hook,
    reason::Reason,
};

use super::Sizes;

const FRAGMENTS: u32 = 8192;
const NEXT_HOPS: u32 = 1024;
const SHARES: u32 = 16_384;

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
}

/// What a map is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// What the node looks like; the agent finds it anew.
    Node,
    /// Services and backends, as the plan writes them.
    Plan,
    /// Connections, which the programs keep.
    Flows,
    /// Which backend a client has had last.
    Affinity,
    /// Traffic of services and backends.
    Counts,
    /// What is soon forgotten, or of a size that is part of its layout.
    Scratch,
    /// The programs themselves.
    Programs,
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

/// The shapes of all maps.
pub fn shapes(sizes: &Sizes) -> Vec<Shape> {
    let Sizes {
        services, backends, ..
    } = *sizes;
    let counts = MapType::PerCpuArray;
    let mut all = Vec::new();
    let mut add = |role, shape| all.push(Shape { role, ..shape });
    {
        use MapType::{Array, Hash, LruHash, ProgramArray};
        add(
            Role::Node,
            since(5, of::<u32, Config>(names::CONFIG, Array, 1)),
        );
        add(
            Role::Node,
            since(5, of::<u32, Device>(names::DEVICES, Hash, sizes.devices)),
        );
        add(
            Role::Scratch,
            since(5, of::<NextHop, u32>(names::NEXT_HOPS, LruHash, NEXT_HOPS)),
        );
        add(Role::Plan, of::<u32, u64>(names::GATE, Array, gate::WORDS));
        add(
            Role::Plan,
            of::<u32, Service>(names::SERVICES, Hash, services),
        );
        add(
            Role::Plan,
            of::<u32, u32>(names::SLOTS, Array, sizes.room().slots()),
        );
        add(
            Role::Counts,
            of::<u32, ServiceCounter>(names::SERVICE_COUNTERS, counts, services),
        );
        add(
            Role::Counts,
            of::<u32, Counter>(names::BACKEND_COUNTERS, counts, backends),
        );
        add(
            Role::Scratch,
            of::<u32, u64>(names::REASONS, counts, reasons()),
        );
        add(Role::Scratch, of::<u32, u32>(names::PORT_CURSOR, Array, 1));
        add(
            Role::Programs,
            since(
                5,
                of::<u32, u32>(names::SLOW_XDP, ProgramArray, SLOW_PROGRAMS),
            ),
        );
        add(
            Role::Programs,
            since(
                5,
                of::<u32, u32>(names::SLOW_TC, ProgramArray, SLOW_PROGRAMS),
            ),
        );
    }
    family::<Ip4>(&mut add, 0, sizes);
    family::<Ip6>(&mut add, 1, sizes);
    all
}

fn family<A>(add: &mut impl FnMut(Role, Shape), family: usize, sizes: &Sizes) {
    use MapType::{Array, Hash, LpmTrie, LruHash};
    let (flows, pending) = (names::FLOWS[family], names::PENDING[family]);
    let (frontends, backends) = (names::FRONTENDS[family], names::BACKENDS[family]);
    let (affinity, ranges) = (names::AFFINITY[family], names::SOURCE_RANGES[family]);
    let (local, fragments) = (names::LOCAL_ADDRS[family], names::FRAGMENTS[family]);
    add(
        Role::Plan,
        of::<FrontendKey<A>, FrontendRef>(frontends, Hash, sizes.room().frontends()),
    );
    add(
        Role::Plan,
        of::<u32, Backend<A>>(backends, Array, sizes.backends),
    );
    add(
        Role::Plan,
        of::<Key<RangeKey<A>>, u32>(ranges, LpmTrie, sizes.room().ranges()),
    );
    add(Role::Node, of::<A, LocalAddr>(local, Hash, sizes.addresses));
    add(
        Role::Flows,
        since(2, of::<FlowKey<A>, Flow<A>>(flows, LruHash, sizes.flows())),
    );
    add(
        Role::Flows,
        since(
            2,
            of::<FlowKey<A>, Flow<A>>(pending, LruHash, sizes.pending()),
        ),
    );
    add(
        Role::Scratch,
        since(5, of::<A, Share>(names::SHARES[family], LruHash, SHARES)),
    );
    add(
        Role::Affinity,
        of::<AffinityKey<A>, Affinity>(affinity, LruHash, sizes.affinity()),
    );
    add(
        Role::Scratch,
        of::<FragmentKey<A>, FragmentPorts>(fragments, LruHash, FRAGMENTS),
    );
}

const fn of<K, V>(name: &'static str, kind: MapType, max_entries: u32) -> Shape {
    Shape {
        name,
        role: Role::Scratch,
        since: 1,
        kind,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        max_entries,
    }
}

const fn since(version: u32, shape: Shape) -> Shape {
    Shape {
        since: version,
        ..shape
    }
}

/// One counter for each reason at each hook.
const fn reasons() -> u32 {
    Hook::ALL.len() as u32 * Reason::COUNT
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
    fn every_map_has_one_shape() {
        let all = shapes(&Sizes::default());
        let mut names: Vec<_> = all.iter().map(|shape| shape.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(all.len(), 12 + 2 * 9);
        for shape in all {
            let versions = 1..=proxy_common::abi::VERSION;
            assert!(versions.contains(&shape.since), "{}", shape.name);
        }
    }

    #[test]
    fn the_maps_of_a_default_agent_stay_within_their_memory() {
        let bytes: u64 = shapes(&Sizes::default())
            .iter()
            .filter(|shape| shape.kind != MapType::PerCpuArray)
            .map(|shape| u64::from(shape.key + shape.value) * u64::from(shape.max_entries))
            .sum();
        assert!(bytes < 100 << 20, "{} MiB", bytes >> 20);
    }
}
