//! The endpoints of a service port, merged from the slices of its service.
//!
//! In: the slices in the order of their names. Out: one [`Candidate`] per address and port, sorted. A slice counts if it
//! is of the family, and its ports count by name and protocol, never by number. Where two slices name the same
//! endpoint, one that is not terminating beats one that is, then a ready one beats one that is not, then the first wins.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use super::{Conditions, Endpoint, EndpointSlice, ServicePortKey, SliceEndpoint};

/// An endpoint together with the slice's word on it (its hints).
#[derive(Debug)]
pub struct Candidate<'a> {
    pub endpoint: Endpoint,
    pub source: &'a SliceEndpoint,
}

/// The endpoints of the service port `key`, as the node named `own_node` sees them, without those at a broadcast address
/// of its subnets.
pub fn merge<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    key: &ServicePortKey,
    own_node: &str,
    broadcasts: &BTreeSet<IpAddr>,
) -> Vec<Candidate<'a>> {
    let mut merged: BTreeMap<SocketAddr, &SliceEndpoint> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.family == key.family) {
        let ports = slice
            .ports
            .iter()
            .filter(|port| port.name == key.port_name && port.protocol == key.protocol);
        for port in ports {
            let endpoints = slice.endpoints.iter();
            for endpoint in endpoints.filter(|one| !broadcasts.contains(&one.addr)) {
                match merged.entry(SocketAddr::new(endpoint.addr, port.number)) {
                    Entry::Vacant(entry) => {
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
    }
    merged
        .into_iter()
        .map(|(socket, source)| Candidate {
            endpoint: Endpoint {
                addr: socket.ip(),
                port: socket.port(),
                local: source.node.as_deref() == Some(own_node),
                conditions: source.conditions,
            },
            source,
        })
        .collect()
}

fn preference(conditions: Conditions) -> impl Ord {
    let Conditions {
        ready,
        serving,
        terminating,
    } = conditions;
    (Reverse(terminating), ready, serving)
}
