//! Confirmed flows of agents before version 6 of the ABI.
//!
//! They stood in one table, from which the kernel took what was not used the longest. Now connections have one from which none is taken, and
//! datagrams one of their own. Keys and values are the same. The table of new flows is, too: it goes on being one map of the old programs and the
//! new ones, so that what is told of flow tables of another size ([`super::super::resize`]) holds here: while no flow leaves the table of new
//! ones, the old table is copied, the links get their programs, and what came into the old table in between is copied.

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, MapType},
};
use proxy_common::{
    abi::{Backend, Flow, FlowKey, names},
    addr::Addr,
};

use super::super::{
    FamilyMaps, Maps, PinDir,
    maps::entries,
    resize::add,
    shape::{Pinned, Shape},
};

/// The versions that have one table for all confirmed flows, with the keys and values of today.
const OLD: std::ops::RangeInclusive<u32> = 2..=5;

/// Is a pinned map such a table? `shape` is what has its name today.
pub fn is_of_old(name: &str, version: u32, found: &Pinned, shape: &Shape) -> bool {
    OLD.contains(&version)
        && names::FLOWS.contains(&name)
        && (found.kind, found.key, found.value) == (MapType::LruHash, shape.key, shape.value)
}

/// May a directory of this version have such tables?
pub fn may_be_of_old(version: u32) -> bool {
    OLD.contains(&version)
}

/// Copies those that are pinned in `from`. What is in `to` stays.
pub fn convert(from: &PinDir, to: &mut Maps) -> Result<()> {
    family(from, &mut to.v4, 0)?;
    family(from, &mut to.v6, 1)
}

fn family<A>(from: &PinDir, to: &mut FamilyMaps<A>, family: usize) -> Result<()>
where
    A: Addr,
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let name = names::FLOWS[family];
    let is_of_old = from
        .shape(name)?
        .is_some_and(|found| found.kind == MapType::LruHash);
    if !is_of_old {
        return Ok(());
    }
    let old: HashMap<_, FlowKey<A>, Flow<A>> = from.open(name)?.try_into()?;
    let mut all = entries(&old).context(name)?;
    // A reply's tuple belongs to its flow before the flow is seen.
    all.sort_by_key(|(_, flow)| !flow.is_reply());
    for (key, flow) in &all {
        add(to.confirmed(key.proto()), key, flow)?;
    }
    Ok(())
}
