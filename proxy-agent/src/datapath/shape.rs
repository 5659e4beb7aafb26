//! The shape of every map, as this version of the agent knows it.
//!
//! In: the sizes. Out: a [`Shape`] per map. The one rule: a pinned map of another shape is never used, because aya would take it
//! without a look and the programs would read it as what it is not.

use std::{fmt, mem::size_of};

use anyhow::{Result, ensure};
use aya::maps::{MapInfo, MapType, lpm_trie::Key};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, Config, Counter, Device, Flow, FlowKey, FragmentKey,
        FragmentPorts, FrontendKey, FrontendRef, LocalAddr, RangeKey, Service, ServiceCounter,
        gate, names,
    },
    addr::{Ip4, Ip6},
    hook::Hook,
    reason::Reason,
};

use super::Sizes;

const DEVICES: u32 = 4096;
const LOCAL_ADDRS: u32 = 4096;
const FRAGMENTS: u32 = 8192;
const SOURCE_RANGES: u32 = 65_536;
/// One for each hook and family.
const SLOW_PROGRAMS: u32 = Hook::ALL.len() as u32 * 2;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub kind: MapType,
    pub key: u32,
    pub value: u32,
    pub max_entries: u32,
}

/// The shapes of all maps.
pub fn shapes(sizes: &Sizes) -> Vec<Shape> {
    let mut all = vec![
        of::<u32, Config>(names::CONFIG, MapType::Array, 1),
        of::<u32, u64>(names::GATE, MapType::Array, gate::WORDS),
        of::<u32, Device>(names::DEVICES, MapType::Hash, DEVICES),
        of::<u32, Service>(names::SERVICES, MapType::Hash, sizes.services),
        of::<u32, u32>(names::SLOTS, MapType::Array, sizes.slots()),
        of::<u32, u64>(names::REASONS, MapType::PerCpuArray, reasons()),
        of::<u32, ServiceCounter>(
            names::SERVICE_COUNTERS,
            MapType::PerCpuArray,
            sizes.services,
        ),
        of::<u32, Counter>(
            names::BACKEND_COUNTERS,
            MapType::PerCpuArray,
            sizes.backends,
        ),
        of::<u32, u32>(names::PORT_CURSOR, MapType::Array, 1),
        of::<u32, u32>(names::SLOW_XDP, MapType::ProgramArray, SLOW_PROGRAMS),
        of::<u32, u32>(names::SLOW_TC, MapType::ProgramArray, SLOW_PROGRAMS),
    ];
    family::<Ip4>(&mut all, 0, sizes);
    family::<Ip6>(&mut all, 1, sizes);
    all
}

fn family<A>(all: &mut Vec<Shape>, family: usize, sizes: &Sizes) {
    all.extend([
        of::<FrontendKey<A>, FrontendRef>(
            names::FRONTENDS[family],
            MapType::Hash,
            sizes.frontends(),
        ),
        of::<u32, Backend<A>>(names::BACKENDS[family], MapType::Array, sizes.backends),
        of::<A, LocalAddr>(names::LOCAL_ADDRS[family], MapType::Hash, LOCAL_ADDRS),
        of::<FlowKey<A>, Flow<A>>(names::FLOWS[family], MapType::LruHash, sizes.flows()),
        of::<FlowKey<A>, Flow<A>>(names::PENDING[family], MapType::LruHash, sizes.pending()),
        of::<AffinityKey<A>, Affinity>(names::AFFINITY[family], MapType::LruHash, sizes.affinity()),
        of::<Key<RangeKey<A>>, u32>(
            names::SOURCE_RANGES[family],
            MapType::LpmTrie,
            SOURCE_RANGES,
        ),
        of::<FragmentKey<A>, FragmentPorts>(names::FRAGMENTS[family], MapType::LruHash, FRAGMENTS),
    ]);
}

const fn of<K, V>(name: &'static str, kind: MapType, max_entries: u32) -> Shape {
    Shape {
        name,
        kind,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        max_entries,
    }
}

/// One counter for each reason at each hook.
const fn reasons() -> u32 {
    Hook::ALL.len() as u32 * Reason::COUNT
}

impl Shape {
    /// Is a map that exists already of this shape?
    pub fn check(&self, found: &MapInfo) -> Result<()> {
        let found = Self {
            name: self.name,
            kind: found.map_type()?,
            key: found.key_size(),
            value: found.value_size(),
            max_entries: found.max_entries(),
        };
        ensure!(
            found == *self,
            "it is {found}, this agent uses {self}: start with the sizes that it was made with, or remove it by \
             `proxy-agent cleanup` (established connections through services end)"
        );
        Ok(())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name: _,
            kind,
            key,
            value,
            max_entries,
        } = self;
        write!(
            f,
            "{kind:?} of {max_entries} entries ({key}-byte keys, {value}-byte values)"
        )
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
        assert_eq!(all.len(), 11 + 2 * 8);
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
