//! Connections end before the programs go.
//!
//! In: the maps of a datapath whose agent has ended. The one rule: an open connection keeps its programs as long as it is
//! waited for. Without frontends no service has new connections: they pass by, to whoever takes service addresses then.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use tracing::{info, warn};

use super::{Connection, ConnectionState, Maps, PinDir, maps::remove};
use crate::model::Protocol;

/// From one look at the flows to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Lets connections end, for as long as `patience`. A datapath that cannot be read is left as it is.
pub fn drain(pins: &PinDir, patience: Duration) {
    if !pins.root().exists() {
        return;
    }
    let drained = pins.open_maps().and_then(|mut maps| {
        remove_all(&mut maps.v4.frontends).context("the frontends of IPv4")?;
        remove_all(&mut maps.v6.frontends).context("the frontends of IPv6")?;
        wait(&maps, patience)
    });
    match drained {
        Ok(0) => {}
        Ok(open) => info!("{open} TCP connections are still open after {patience:?}: they end now"),
        Err(error) => warn!("open connections are not waited for: {error:#}"),
    }
}

/// How many are open when the time is over.
fn wait(maps: &Maps, patience: Duration) -> Result<usize> {
    let end = Instant::now() + patience;
    let mut before = usize::MAX;
    loop {
        let open = open(maps)?;
        // Twice: a flow that goes from the pending table to the other one may be seen in neither.
        if before.max(open) == 0 || Instant::now() >= end {
            return Ok(open);
        }
        before = open;
        thread::sleep(PAUSE);
    }
}

fn open(maps: &Maps) -> Result<usize> {
    let connections = maps.connections()?;
    let is_open = |one: &&Connection| {
        one.protocol == Some(Protocol::Tcp) && one.state != ConnectionState::Closing
    };
    Ok(connections.iter().filter(is_open).count())
}

fn remove_all<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<(), MapError> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|key| remove(map, key))
}
