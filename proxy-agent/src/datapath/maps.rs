//! The maps, typed.
//!
//! In: a way to get a map by its name (from a loaded object, or from the pins of a running datapath). Out: [`Maps`].

use std::{borrow::Borrow, collections::HashSet, hash::Hash, io, net::IpAddr};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, ProgramArray},
};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, BackendId, Config, Counter, Device, Flow, FlowKey,
        FragmentKey, FragmentPorts, FrontendKey, IfIndex, Jiffies, LocalAddr, NextHop, RangeKey,
        Service, ServiceCounter, ServiceId, Slot,
        map::{self, OfFamily, Prefix},
        names,
    },
    addr::{Addr, Ip4, Ip6},
    tables::Table,
};

use super::batch::Batched;

/// All maps of a datapath.
pub struct Maps {
    pub config: Array<MapData, Config>,
    pub gate: Batched<Array<MapData, u64>>,
    pub devices: HashMap<MapData, IfIndex, Device>,
    /// Values are when one was last looked up.
    pub next_hops: HashMap<MapData, NextHop, Jiffies>,
    pub services: Batched<HashMap<MapData, ServiceId, Service>>,
    pub slots: Batched<Array<MapData, BackendId>>,
    /// By family.
    pub full_since: Array<MapData, Jiffies>,
    pub reasons: PerCpuArray<MapData, u64>,
    pub service_counts: Batched<PerCpuArray<MapData, ServiceCounter>>,
    /// First packets that were held.
    pub service_held: Batched<PerCpuArray<MapData, u64>>,
    pub backend_counts: Batched<PerCpuArray<MapData, Counter>>,
    /// Held here, because the kernel empties a program array that no process holds and no pin.
    pub(super) slow_xdp: ProgramArray<MapData>,
    pub(super) slow_tc: ProgramArray<MapData>,
    pub v4: FamilyMaps<Ip4>,
    pub v6: FamilyMaps<Ip6>,
}

/// A table of flows.
pub type FlowTable<A> = Batched<HashMap<MapData, FlowKey<A>, Flow<A>>>;

/// The maps of one address family.
pub struct FamilyMaps<A>
where
    Backend<A>: Pod,
{
    /// Values are [`proxy_common::abi::FrontendRef`]s.
    pub frontends: Batched<HashMap<MapData, FrontendKey<A>, u32>>,
    pub backends: Batched<Array<MapData, Backend<A>>>,
    pub local_addrs: HashMap<MapData, A, LocalAddr>,
    /// Confirmed connections.
    pub flows: FlowTable<A>,
    /// Confirmed flows of datagrams.
    pub datagrams: FlowTable<A>,
    pub pending: FlowTable<A>,
    pub affinity: HashMap<MapData, AffinityKey<A>, Affinity>,
    pub source_ranges: LpmTrie<MapData, RangeKey<A>, u32>,
    pub fragments: HashMap<MapData, FragmentKey<A>, FragmentPorts>,
}

impl<A> FamilyMaps<A>
where
    Backend<A>: Pod,
{
    /// The table of confirmed flows of a protocol.
    pub fn confirmed(&mut self, proto: u8) -> &mut FlowTable<A> {
        match Table::confirmed(proto) {
            Table::Datagrams => &mut self.datagrams,
            Table::Connections | Table::Pending => &mut self.flows,
        }
    }

    /// The tables of flows, each with its name.
    pub fn flow_tables(&self, family: usize) -> [(&FlowTable<A>, &'static str); 3] {
        [
            (&self.flows, names::FLOWS[family]),
            (&self.datagrams, names::DATAGRAMS[family]),
            (&self.pending, names::PENDING[family]),
        ]
    }
}

/// An address as it lies in a map.
pub trait MapAddr: Addr + Pod {
    fn ip(self) -> IpAddr;
}

impl MapAddr for Ip4 {
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl MapAddr for Ip6 {
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

impl Maps {
    /// Takes each map from `source` by its name.
    pub fn open(mut source: impl FnMut(&str) -> Result<Map>) -> Result<Self> {
        let source = &mut source;
        Ok(Self {
            config: typed(source, &map::CONFIG)?,
            gate: batched(source, &map::GATE)?,
            devices: typed(source, &map::DEVICES)?,
            next_hops: typed(source, &map::NEXT_HOPS)?,
            services: batched(source, &map::SERVICES)?,
            slots: batched(source, &map::SLOTS)?,
            full_since: typed(source, &map::FULL_SINCE)?,
            reasons: typed(source, &map::REASONS)?,
            service_counts: batched(source, &map::SERVICE_COUNTS)?,
            service_held: batched(source, &map::SERVICE_HELD)?,
            backend_counts: batched(source, &map::BACKEND_COUNTS)?,
            slow_xdp: typed(source, &map::SLOW_XDP)?,
            slow_tc: typed(source, &map::SLOW_TC)?,
            v4: FamilyMaps::open(source, &map::V4)?,
            v6: FamilyMaps::open(source, &map::V6)?,
        })
    }
}

impl<A> FamilyMaps<A>
where
    A: Pod,
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
    AffinityKey<A>: Pod,
    RangeKey<A>: Pod,
    FragmentKey<A>: Pod,
{
    fn open(source: &mut impl FnMut(&str) -> Result<Map>, table: &OfFamily<A>) -> Result<Self> {
        Ok(Self {
            frontends: batched(source, &table.frontends)?,
            backends: batched(source, &table.backends)?,
            local_addrs: typed(source, &table.local_addrs)?,
            flows: batched(source, &table.flows)?,
            datagrams: batched(source, &table.datagrams)?,
            pending: batched(source, &table.pending)?,
            affinity: typed(source, &table.affinity)?,
            source_ranges: typed(source, &table.ranges)?,
            fragments: typed(source, &table.fragments)?,
        })
    }
}

/// What the elements of an array are numbered by.
pub trait Index {}

impl Index for u32 {}
impl Index for Slot {}
impl Index for ServiceId {}
impl Index for BackendId {}

/// A map as aya types it, whose keys and values are those of a row of the table.
pub trait Holds<K, V>: TryFrom<Map, Error = MapError> {}

impl<K: Pod, V: Pod> Holds<K, V> for HashMap<MapData, K, V> {}
impl<K: Index, V: Pod> Holds<K, V> for Array<MapData, V> {}
impl<K: Index, V: Pod> Holds<K, V> for PerCpuArray<MapData, V> {}
impl<K: Pod, V: Pod> Holds<Prefix<K>, V> for LpmTrie<MapData, K, V> {}
impl Holds<u32, u32> for ProgramArray<MapData> {}

/// Takes the map of a row of the table.
pub fn typed<M, K, V>(
    source: &mut impl FnMut(&str) -> Result<Map>,
    row: &map::Map<K, V>,
) -> Result<M>
where
    M: Holds<K, V>,
{
    source(row.name)?
        .try_into()
        .with_context(|| format!("map {}", row.name))
}

/// The same for one that may be read and written in batches.
pub fn batched<M, K, V>(
    source: &mut impl FnMut(&str) -> Result<Map>,
    row: &map::Map<K, V>,
) -> Result<Batched<M>>
where
    M: Holds<K, V>,
{
    Batched::new(source(row.name)?).with_context(|| format!("map {}", row.name))
}

/// Puts `value` under `key`, but leaves the map alone where it stands already: a write of a hash map's element takes its
/// bucket's lock, and the programs read most of them at every packet.
pub fn set<K, V>(map: &mut HashMap<MapData, K, V>, key: &K, value: V) -> Result<(), MapError>
where
    K: Pod,
    V: Pod + PartialEq,
{
    match map.get(key, 0) {
        Ok(found) if found == value => Ok(()),
        Ok(_) | Err(MapError::KeyNotFound) => map.insert(key, value, 0),
        Err(error) => Err(error),
    }
}

/// Removes `key`, which may be gone already.
pub fn remove<K, V>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<(), MapError>
where
    K: Pod,
    V: Pod,
{
    gone(map.remove(key))
}

/// Takes it for removed where nothing was there: aya hands the kernel's ENOENT on.
pub fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        done => done,
    }
}

/// Makes the keys of `map` those of `wanted`, and their values too.
pub fn replace<'a, K, V>(
    map: &mut HashMap<MapData, K, V>,
    wanted: impl IntoIterator<Item = (&'a K, &'a V)> + Clone,
) -> Result<(), MapError>
where
    K: Pod + Eq + Hash + 'a,
    V: Pod + PartialEq + 'a,
{
    let keys: HashSet<K> = wanted.clone().into_iter().map(|(key, _)| *key).collect();
    for (key, value) in wanted {
        set(map, key, *value)?;
    }
    let gone: Vec<K> = map
        .keys()
        .filter(|key| !matches!(key, Ok(key) if keys.contains(key)))
        .collect::<Result<_, _>>()?;
    for key in gone {
        remove(map, &key)?;
    }
    Ok(())
}

/// All entries of a hash map. One that the kernel evicts while they are read may be missing or come twice.
pub fn entries<T, K, V>(map: &HashMap<T, K, V>) -> Result<Vec<(K, V)>, MapError>
where
    T: Borrow<MapData>,
    K: Pod,
    V: Pod,
{
    map.iter().collect()
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;
    use nix::libc;

    use super::*;

    #[test]
    fn what_is_not_there_is_as_good_as_removed() {
        let failed = |code| {
            Err(MapError::SyscallError(SyscallError {
                call: "bpf_map_delete_elem",
                io_error: io::Error::from_raw_os_error(code),
            }))
        };
        assert!(gone(failed(libc::ENOENT)).is_ok());
        assert!(gone(failed(libc::EPERM)).is_err());
    }
}
