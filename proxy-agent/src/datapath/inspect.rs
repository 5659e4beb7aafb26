//! Reads a running datapath into plain types.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, Flow, FlowKey, FragmentKey, FragmentPorts, FrontendKey,
        RangeKey, ServiceId, flow_state, names,
    },
    addr::Be16,
};

use super::{FamilyMaps, Maps, PinDir, maps::MapAddr};
use crate::{model::Protocol, plan::Image};

/// A connection through a service, as the packets of its client show it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection {
    /// `None` for a protocol that no service port has.
    pub protocol: Option<Protocol>,
    pub client: SocketAddr,
    /// What the client talks to.
    pub frontend: SocketAddr,
    pub backend: SocketAddr,
    /// What the backend sees as its client.
    pub source: SocketAddr,
    /// Its id.
    pub service: ServiceId,
    pub state: ConnectionState,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConnectionState {
    New,
    Established,
    Closing,
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Occupancy {
    pub map: &'static str,
    pub used: usize,
    pub size: u32,
}

impl Maps {
    /// All connections of both families. What changes meanwhile may be missing or come twice.
    pub fn connections(&self) -> Result<Vec<Connection>> {
        let mut all = connections(&self.v4, 0)?;
        all.extend(connections(&self.v6, 1)?);
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// How full the maps are that can become full. `image` is what they hold.
    pub fn occupancy(&self, image: &Image, pins: &PinDir) -> Result<Vec<Occupancy>> {
        let backends = image
            .backends
            .values()
            .filter(|entry| !entry.flags.is_empty());
        let v6 = backends
            .clone()
            .filter(|entry| entry.socket.is_ipv6())
            .count();
        let mut all = vec![
            (names::SERVICES, image.services.len()),
            (names::SLOTS, image.slots.len()),
            (names::DEVICES, count(&self.devices, names::DEVICES)?),
            (names::BACKENDS[0], backends.count() - v6),
            (names::BACKENDS[1], v6),
        ];
        all.extend(family(&self.v4, 0)?);
        all.extend(family(&self.v6, 1)?);
        all.sort_unstable();
        all.into_iter()
            .map(|(map, used)| {
                let size = pins.size(map)?;
                Ok(Occupancy { map, used, size })
            })
            .collect()
    }
}

fn connections<A>(maps: &FamilyMaps<A>, family: usize) -> Result<Vec<Connection>>
where
    A: MapAddr,
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let mut all = Vec::new();
    for (map, name) in maps.flow_tables(family) {
        for (key, flow) in map.entries().context(name)? {
            if !flow.is_reply() && !flow.is_own() {
                all.push(connection(&key, &flow));
            }
        }
    }
    Ok(all)
}

fn connection<A: MapAddr>(key: &FlowKey<A>, flow: &Flow<A>) -> Connection {
    let socket = |addr: A, port: Be16| SocketAddr::new(addr.ip(), port.get());
    Connection {
        protocol: Protocol::from_number(key.proto()),
        client: socket(key.tuple.src, key.tuple.sport),
        frontend: socket(key.tuple.dst, key.tuple.dport),
        backend: socket(flow.to.dst, flow.to.dport),
        source: socket(flow.to.src, flow.to.sport),
        service: flow.service,
        state: if flow.is_closing() || flow.is_reset() {
            ConnectionState::Closing
        } else if flow.state & flow_state::ANSWERED != 0 {
            ConnectionState::Established
        } else {
            ConnectionState::New
        },
    }
}

fn family<A>(maps: &FamilyMaps<A>, family: usize) -> Result<Vec<(&'static str, usize)>>
where
    A: MapAddr,
    Backend<A>: Pod,
    FrontendKey<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
    AffinityKey<A>: Pod,
    Affinity: Pod,
    RangeKey<A>: Pod,
    FragmentKey<A>: Pod,
    FragmentPorts: Pod,
{
    let ranges = names::SOURCE_RANGES[family];
    Ok(vec![
        counted(&maps.frontends, names::FRONTENDS[family])?,
        counted(&maps.local_addrs, names::LOCAL_ADDRS[family])?,
        counted(&maps.flows, names::FLOWS[family])?,
        counted(&maps.datagrams, names::DATAGRAMS[family])?,
        counted(&maps.pending, names::PENDING[family])?,
        counted(&maps.affinity, names::AFFINITY[family])?,
        counted(&maps.fragments, names::FRAGMENTS[family])?,
        (
            ranges,
            maps.source_ranges
                .keys()
                .collect::<Result<Vec<_>, _>>()
                .context(ranges)?
                .len(),
        ),
    ])
}

fn counted<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<(&'static str, usize)> {
    Ok((name, count(map, name)?))
}

fn count<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, name: &'static str) -> Result<usize> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().context(name)?;
    Ok(keys.len())
}
