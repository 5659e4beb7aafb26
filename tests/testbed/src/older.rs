//! Pins as an older version of the agent leaves them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use proxy_agent::datapath::{FamilyMaps, MapAddr, Maps};
use proxy_common::abi::{Backend, Flow, FlowKey};

/// The version whose pins [`make`] makes.
pub const VERSION: u32 = 5;

/// `BPF_MAP_TYPE_LRU_HASH` (kernel include/uapi/linux/bpf.h).
const LRU_HASH: u32 = 9;

/// Has flows pinned as an agent of version 5 pins them: connections and datagrams in one table, with this room.
pub fn make(maps: &Maps, pins: &Path, room: u32) -> Result<()> {
    one_table(
        &maps.v4,
        ["FLOWS_4", "DATAGRAMS_4"].map(|name| pins.join(name)),
        room,
    )?;
    one_table(
        &maps.v6,
        ["FLOWS_6", "DATAGRAMS_6"].map(|name| pins.join(name)),
        room,
    )?;
    Ok(fs::remove_file(pins.join("FULL_SINCE"))?)
}

fn one_table<A: MapAddr>(
    maps: &FamilyMaps<A>,
    [flows, datagrams]: [PathBuf; 2],
    room: u32,
) -> Result<()>
where
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let (key, value) = (size_of::<FlowKey<A>>() as u32, size_of::<Flow<A>>() as u32);
    let of_kernel = aya_obj::Map::new_from_params(LRU_HASH, key, value, room, 0);
    let data = MapData::create(of_kernel, "older", None)?;
    let mut all: HashMap<_, FlowKey<A>, Flow<A>> = Map::LruHashMap(data).try_into()?;
    for (key, flow) in maps
        .flows
        .entries()?
        .into_iter()
        .chain(maps.datagrams.entries()?)
    {
        all.insert(key, flow, 0)?;
    }
    fs::remove_file(&flows)?;
    fs::remove_file(datagrams)?;
    Ok(all.pin(flows)?)
}
