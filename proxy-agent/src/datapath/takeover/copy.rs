//! Copies the plan's maps and the counters into maps of other sizes.
//!
//! The agent that wrote the plan's maps is gone, and this one writes no others than its own: nothing changes while they are read. The old
//! programs go on counting; what they count from here on until they are replaced is lost.

use std::fmt;

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray},
};
use proxy_common::abi::{
    Backend, BackendId, FrontendKey, RangeKey,
    map::{self, Map, OfFamily, Prefix},
};

use super::super::{
    FamilyMaps, Maps, PinDir,
    batch::Batched,
    maps::{Index, batched, entries, typed},
    shape::Shape,
};

/// What a smaller map has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutOff {
    map: &'static str,
    elements: usize,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, elements } = self;
        write!(f, "{elements} elements of {map}")
    }
}

/// Copies from the pins `from` every map of which `is_copied` says so; `to` are the new ones, of these `shapes`.
pub fn copy(
    from: &PinDir,
    shapes: &[Shape],
    is_copied: &dyn Fn(&str) -> bool,
    to: &mut Maps,
) -> Result<Vec<CutOff>> {
    let mut copying = Copying {
        from,
        shapes,
        is_copied,
        cut_off: Vec::new(),
    };
    copying.array(&map::GATE, &mut to.gate, 0)?;
    copying.array(&map::SLOTS, &mut to.slots, BackendId::default())?;
    copying.counts(&map::SERVICE_COUNTS, &mut to.service_counts)?;
    copying.counts(&map::SERVICE_HELD, &mut to.service_held)?;
    copying.counts(&map::BACKEND_COUNTS, &mut to.backend_counts)?;
    // The id of a service is an index of its counter.
    let ids = to.service_counts.len();
    copying.hash(&map::SERVICES, &mut to.services, |id| id.0 < ids)?;
    copying.family(&mut to.v4, &map::V4)?;
    copying.family(&mut to.v6, &map::V6)?;
    Ok(copying.cut_off)
}

struct Copying<'a> {
    from: &'a PinDir,
    shapes: &'a [Shape],
    is_copied: &'a dyn Fn(&str) -> bool,
    cut_off: Vec<CutOff>,
}

impl Copying<'_> {
    fn family<A>(&mut self, to: &mut FamilyMaps<A>, table: &OfFamily<A>) -> Result<()>
    where
        Backend<A>: Pod + Default + PartialEq,
        FrontendKey<A>: Pod,
        RangeKey<A>: Pod,
    {
        self.array(&table.backends, &mut to.backends, Backend::default())?;
        self.hash(&table.frontends, &mut to.frontends, |_| true)?;
        self.trie(&table.ranges, &mut to.source_ranges)
    }

    fn array<K: Index, V: Pod + PartialEq>(
        &mut self,
        row: &Map<K, V>,
        to: &mut Batched<Array<MapData, V>>,
        zero: V,
    ) -> Result<()> {
        let name = row.name;
        if !self.is_copied(name) {
            return Ok(());
        }
        let old: Batched<Array<_, V>> = batched(&mut |name| self.from.open(name), row)?;
        let all = (0..).zip(old.all().context(name)?);
        let used = all.filter(|(_, value)| *value != zero).collect();
        let (keys, values) = self.fitting(name, used, |index| *index < to.len(), usize::MAX);
        to.set_all(&keys, &values).context(name)
    }

    fn counts<K: Index, V: Pod + Default + PartialEq>(
        &mut self,
        row: &Map<K, V>,
        to: &mut Batched<PerCpuArray<MapData, V>>,
    ) -> Result<()> {
        let name = row.name;
        if !self.is_copied(name) {
            return Ok(());
        }
        let old: Batched<PerCpuArray<_, V>> = batched(&mut |name| self.from.open(name), row)?;
        let used = old.all_but(V::default()).context(name)?;
        let (keys, values) = self.fitting(name, used, |index| *index < to.len(), usize::MAX);
        to.set_all(&keys, &values.concat()).context(name)
    }

    fn hash<K: Pod, V: Pod>(
        &mut self,
        row: &Map<K, V>,
        to: &mut Batched<HashMap<MapData, K, V>>,
        fits: impl Fn(&K) -> bool,
    ) -> Result<()> {
        let name = row.name;
        if !self.is_copied(name) {
            return Ok(());
        }
        let old: HashMap<_, K, V> = typed(&mut |name| self.from.open(name), row)?;
        let all = entries(&old).context(name)?;
        let room = self.room(name);
        let (keys, values) = self.fitting(name, all, fits, room);
        to.insert_all(&keys, &values).context(name)
    }

    fn trie<A>(
        &mut self,
        row: &Map<Prefix<RangeKey<A>>, u32>,
        to: &mut LpmTrie<MapData, RangeKey<A>, u32>,
    ) -> Result<()>
    where
        RangeKey<A>: Pod,
    {
        let name = row.name;
        if !self.is_copied(name) {
            return Ok(());
        }
        let old: LpmTrie<_, RangeKey<A>, u32> = typed(&mut |name| self.from.open(name), row)?;
        let all = old.iter().collect::<Result<Vec<_>, _>>().context(name)?;
        let room = self.room(name);
        let (keys, values) = self.fitting(name, all, |_| true, room);
        for (key, value) in keys.iter().zip(values) {
            to.insert(key, value, 0).context(name)?;
        }
        Ok(())
    }

    fn is_copied(&self, name: &str) -> bool {
        (self.is_copied)(name)
    }

    /// How many entries the new map has room for.
    fn room(&self, name: &str) -> usize {
        let shape = self.shapes.iter().find(|shape| shape.name == name);
        shape.map_or(0, |shape| shape.max_entries as usize)
    }

    /// At most `room` of those elements that fit; the others are noted.
    fn fitting<K, V>(
        &mut self,
        map: &'static str,
        all: Vec<(K, V)>,
        fits: impl Fn(&K) -> bool,
        room: usize,
    ) -> (Vec<K>, Vec<V>) {
        let before = all.len();
        let fitting = all.into_iter().filter(|(key, _)| fits(key)).take(room);
        let fitting: (Vec<K>, Vec<V>) = fitting.unzip();
        let elements = before - fitting.0.len();
        if elements > 0 {
            self.cut_off.push(CutOff { map, elements });
        }
        fitting
    }
}
