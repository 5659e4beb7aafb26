//! Reads the maps as they are while an agent writes them, as a packet's program does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};
use proxy_agent::datapath::{FamilyMaps, MapAddr, Maps, PinDir};
use proxy_common::abi::{Backend, FrontendKey, FrontendKind, FrontendRef, Service, ServiceId};
use testbed::pinned;
use testbed::topology::Node;

/// What was let go may be used again after two seconds: a look that took half of one proves nothing.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// Leaves the processors to those who are looked at for a while.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at all frontends of `node` again and again; the first that leads to a missing backend is the error. Returns
/// how often it saw all of them in maps that stayed pinned meanwhile.
pub fn until(done: &AtomicBool, node: &Node) -> Result<usize> {
    let mut looks = 0;
    while !done.load(Ordering::Relaxed) {
        // An agent that needs more room puts larger maps in the place of those that have too little.
        let before = pinned::maps(node)?;
        let maps = PinDir::new(&node.bpffs).open_maps()?;
        let found = look(&maps, &maps.v4)?.or(look(&maps, &maps.v6)?);
        if pinned::maps(node)? == before {
            if let Some(wrong) = found {
                bail!("{wrong}");
            }
            looks += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(looks)
}

fn look<A: MapAddr>(maps: &Maps, family: &FamilyMaps<A>) -> Result<Option<String>>
where
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
{
    // A key that goes away while the map is walked begins the walk anew, which the next look makes up for.
    for key in family.frontends.keys() {
        let key = key?;
        let began = Instant::now();
        let Some(to) = get(&family.frontends, key)? else {
            continue;
        };
        if FrontendRef(to).kind() == FrontendKind::Refuse {
            continue;
        }
        let id = FrontendRef(to).service();
        let service = get(&maps.services, id)?;
        let found = match service {
            None => Err("no such service".to_owned()),
            Some(service) => leads_to_backends(maps, family, id, service)?,
        };
        let Err(wrong) = found else { continue };
        // What was read in pieces counts only if it stood there all the time.
        let same = get(&family.frontends, key)? == Some(to) && get(&maps.services, id)? == service;
        if same && began.elapsed() < LOOK_WITHIN {
            let at = SocketAddr::new(key.addr.ip(), key.port.get());
            return Ok(Some(format!("frontend {at} of service {id}: {wrong}")));
        }
    }
    Ok(None)
}

fn leads_to_backends<A: MapAddr>(
    maps: &Maps,
    family: &FamilyMaps<A>,
    id: ServiceId,
    service: Service,
) -> Result<Result<(), String>>
where
    Backend<A>: Pod,
{
    for extent in [service.internal, service.external, service.short_circuit] {
        for slot in extent.slots() {
            let backend = maps.slots.get(&slot.0, 0).context("a slot")?;
            let entry = family.backends.get(&backend.0, 0).context("a backend")?;
            if entry.flags.is_empty() || entry.service != id {
                let (flags, owner) = (entry.flags, entry.service);
                return Ok(Err(format!(
                    "slot {slot} has backend {backend}, whose flags are {flags:?} and whose service is {owner}"
                )));
            }
        }
    }
    Ok(Ok(()))
}

fn get<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, key: K) -> Result<Option<V>> {
    match map.get(&key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
