//! The endpoints of a service port, merged from the slices of its service.
//!
//! In: the slices in the order of their names. Out: one [`Candidate`] per address and port, sorted. A slice counts if it
//! is of the family, and its ports count by name and protocol, never by number. Where two slices name the same
//! endpoint, one that is not terminating beats one that is, then a ready one beats one that is not, then the first wins.
//! A service has a bound of endpoints over all its ports; those that come first have the room.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Conditions, Endpoint, EndpointSlice, Family, Protocol, ServicePortKey, SliceEndpoint};

/// An endpoint together with the slice's word on it (its hints).
#[derive(Debug)]
pub struct Candidate<'a> {
    pub endpoint: Endpoint,
    pub source: &'a SliceEndpoint,
}

/// What a port of a slice is called, as far as it matters.
type PortName = (Family, Arc<str>, Protocol);

/// The slices of a service, by what their ports are called: a service with thousands of ports looks through none for each.
pub struct Slices<'a> {
    /// In the order of their names.
    ports: HashMap<PortName, Vec<(&'a EndpointSlice, u16)>>,
}

impl<'a> Slices<'a> {
    pub fn new(slices: &'a [EndpointSlice]) -> Self {
        let mut ports: HashMap<_, Vec<_>> = HashMap::new();
        for slice in slices {
            for port in &slice.ports {
                let key = (slice.family, Arc::clone(&port.name), port.protocol);
                ports.entry(key).or_default().push((slice, port.number));
            }
        }
        Self { ports }
    }

    fn of(&self, key: &ServicePortKey) -> &[(&'a EndpointSlice, u16)] {
        self.ports
            .get(&(key.family, Arc::clone(&key.port_name), key.protocol))
            .map_or(&[], Vec::as_slice)
    }
}

/// The endpoints of the service port `key`, as the node named `own_node` sees them, without those at a broadcast address
/// of its subnets, and how many are left out. `room` is how many more the service may have.
pub fn merge<'a>(
    slices: &Slices<'a>,
    key: &ServicePortKey,
    own_node: &str,
    broadcasts: &BTreeSet<IpAddr>,
    room: &mut u32,
) -> (Vec<Candidate<'a>>, u32) {
    let mut merged: BTreeMap<SocketAddr, &SliceEndpoint> = BTreeMap::new();
    let mut left_out = 0_u32;
    for (slice, port) in slices.of(key) {
        let endpoints = slice.endpoints.iter().enumerate();
        for (index, endpoint) in endpoints.filter(|(_, one)| !broadcasts.contains(&one.addr)) {
            match merged.entry(SocketAddr::new(endpoint.addr, *port)) {
                Entry::Vacant(_) if *room == 0 => {
                    // Not looked at, so that what nobody gets costs nothing.
                    left_out = left_out.saturating_add((slice.endpoints.len() - index) as u32);
                    break;
                }
                Entry::Vacant(entry) => {
                    *room -= 1;
                    entry.insert(endpoint);
                }
                Entry::Occupied(mut entry) => {
                    if preference(endpoint.conditions) > preference(entry.get().conditions) {
                        entry.insert(endpoint);
                    }
                }
            }
        }
    }
    let candidates = merged
        .into_iter()
        .map(|(socket, source)| Candidate {
            endpoint: Endpoint {
                addr: socket.ip(),
                port: socket.port(),
                local: source.node.as_deref() == Some(own_node),
                conditions: source.conditions,
                weight: source.weight,
            },
            source,
        })
        .collect();
    (candidates, left_out)
}

fn preference(conditions: Conditions) -> impl Ord {
    let Conditions {
        ready,
        serving,
        terminating,
    } = conditions;
    (Reverse(terminating), ready, serving)
}
