//! Operations of the plan -> map writes.

use std::{
    mem::{Discriminant, discriminant},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};
use aya::maps::{MapError, lpm_trie::Key};
use proxy_common::{
    abi::{Backend, Counter, FrontendKey, FrontendRef, RangeKey, ServiceCounter, ServiceId},
    addr::{Addr, Be16, Ip4, Ip6},
};

use super::{
    Datapath, FamilyMaps,
    maps::{Maps, gone, remove},
    sys::wait_for_programs,
};
use crate::{
    model::{Cidr, Family},
    plan::{BackendEntry, FrontendAt, Op},
};

impl Datapath {
    /// Does the operations in their order; those of one sort that follow each other are one system call where the kernel has it. At an
    /// error those before it are done and those behind its run are not.
    pub fn apply(&mut self, ops: &[Op]) -> Result<()> {
        for run in ops.chunk_by(|one, next| sort(one) == sort(next)) {
            write(&mut self.maps, run).with_context(|| match run {
                [op] => format!("writing {op}"),
                [op, more @ ..] => format!("writing {op} and {} more", more.len()),
                [] => String::new(),
            })?;
        }
        Ok(())
    }
}

/// Operations of the same sort are writes of the same map.
fn sort(op: &Op) -> (Discriminant<Op>, bool) {
    let is_v4 = match op {
        Op::Backend { entry, .. } => entry.socket.is_ipv4(),
        Op::Frontend { at, .. } => is_v4(*at),
        _ => true,
    };
    (discriminant(op), is_v4)
}

const fn is_v4(at: FrontendAt) -> bool {
    match at {
        FrontendAt::Port { addr, .. } | FrontendAt::WholeAddress(addr) => addr.is_ipv4(),
        FrontendAt::NodePort { family, .. } => matches!(family, Family::Ipv4),
    }
}

/// Writes a run of operations of one sort.
fn write(maps: &mut Maps, run: &[Op]) -> Result<()> {
    let mut gate = Writes::default();
    let mut services = Writes::default();
    let mut slots = Writes::default();
    let mut service_counts = Vec::new();
    let mut backend_counts = Vec::new();
    let mut v4 = FamilyWrites::default();
    let mut v6 = FamilyWrites::default();
    for op in run {
        match *op {
            Op::Gate { word, bits } => gate.add(word, bits),
            Op::ClearServiceCount { id } => service_counts.push(id.0),
            Op::ClearBackendCount { id } => backend_counts.push(id.0),
            Op::Backend { id, entry } => match entry.socket {
                SocketAddr::V4(socket) => {
                    v4.backends.add(id.0, backend((*socket.ip()).into(), entry))
                }
                SocketAddr::V6(socket) => {
                    v6.backends.add(id.0, backend((*socket.ip()).into(), entry))
                }
            },
            Op::Slots { base, ref backends } => {
                for (slot, id) in (base.0..).zip(backends) {
                    slots.add(slot, *id);
                }
            }
            Op::Service { id, value } => services.add(id, value),
            Op::Frontend {
                at,
                to: FrontendRef(to),
            } => match frontend_key(at) {
                FamilyKey::V4(key) => v4.frontends.add(key, to),
                FamilyKey::V6(key) => v6.frontends.add(key, to),
            },
            Op::AddRange { service, range } => add_range(maps, service, range)?,
            Op::RemoveRange { service, range } => remove_range(maps, service, range)?,
            Op::RemoveService { id } => remove(&mut maps.services, &id)?,
            Op::RemoveFrontend { at } => remove_frontend(maps, at)?,
            Op::AwaitPrograms => wait_for_programs(),
        }
    }
    maps.gate.set_all(&gate.keys, &gate.values)?;
    maps.service_counts
        .clear(&service_counts, ServiceCounter::default())?;
    maps.service_held.clear(&service_counts, 0)?;
    maps.backend_counts
        .clear(&backend_counts, Counter::default())?;
    maps.slots.set_all(&slots.keys, &slots.values)?;
    maps.services.insert_all(&services.keys, &services.values)?;
    v4.write(&mut maps.v4)?;
    v6.write(&mut maps.v6)
}

/// Keys, each with its value at the same place.
struct Writes<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Default for Writes<K, V> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<K, V> Writes<K, V> {
    fn add(&mut self, key: K, value: V) {
        self.keys.push(key);
        self.values.push(value);
    }
}

struct FamilyWrites<A> {
    backends: Writes<u32, Backend<A>>,
    frontends: Writes<FrontendKey<A>, u32>,
}

impl<A> Default for FamilyWrites<A> {
    fn default() -> Self {
        Self {
            backends: Writes::default(),
            frontends: Writes::default(),
        }
    }
}

impl<A> FamilyWrites<A>
where
    Backend<A>: aya::Pod,
    FrontendKey<A>: aya::Pod,
{
    fn write(&self, maps: &mut FamilyMaps<A>) -> Result<()> {
        let Self {
            backends,
            frontends,
        } = self;
        maps.backends.set_all(&backends.keys, &backends.values)?;
        maps.frontends
            .insert_all(&frontends.keys, &frontends.values)
    }
}

fn add_range(maps: &mut Maps, service: ServiceId, range: Cidr) -> Result<(), MapError> {
    match range.addr() {
        IpAddr::V4(addr) => {
            let key = range_key(service, range, Ip4::from(addr));
            maps.v4.source_ranges.insert(&key, 1, 0)
        }
        IpAddr::V6(addr) => {
            let key = range_key(service, range, Ip6::from(addr));
            maps.v6.source_ranges.insert(&key, 1, 0)
        }
    }
}

fn remove_range(maps: &mut Maps, service: ServiceId, range: Cidr) -> Result<(), MapError> {
    gone(match range.addr() {
        IpAddr::V4(addr) => {
            let key = range_key(service, range, Ip4::from(addr));
            maps.v4.source_ranges.remove(&key)
        }
        IpAddr::V6(addr) => {
            let key = range_key(service, range, Ip6::from(addr));
            maps.v6.source_ranges.remove(&key)
        }
    })
}

fn backend<A>(addr: A, entry: BackendEntry) -> Backend<A> {
    let BackendEntry {
        socket,
        flags,
        generation,
        service,
    } = entry;
    Backend {
        addr,
        port: Be16::new(socket.port()),
        flags,
        generation,
        service,
    }
}

fn remove_frontend(maps: &mut Maps, at: FrontendAt) -> Result<(), MapError> {
    match frontend_key(at) {
        FamilyKey::V4(key) => remove(&mut maps.v4.frontends, &key),
        FamilyKey::V6(key) => remove(&mut maps.v6.frontends, &key),
    }
}

enum FamilyKey {
    V4(FrontendKey<Ip4>),
    V6(FrontendKey<Ip6>),
}

fn frontend_key(at: FrontendAt) -> FamilyKey {
    match at {
        FrontendAt::Port {
            addr,
            port,
            protocol,
        } => {
            let (port, proto) = (Be16::new(port), protocol.number());
            match addr {
                IpAddr::V4(addr) => FamilyKey::V4(FrontendKey::new(addr.into(), port, proto)),
                IpAddr::V6(addr) => FamilyKey::V6(FrontendKey::new(addr.into(), port, proto)),
            }
        }
        FrontendAt::NodePort {
            family,
            port,
            protocol,
        } => {
            let (port, proto) = (Be16::new(port), protocol.number());
            match family {
                Family::Ipv4 => FamilyKey::V4(FrontendKey::node_port(port, proto)),
                Family::Ipv6 => FamilyKey::V6(FrontendKey::node_port(port, proto)),
            }
        }
        FrontendAt::WholeAddress(IpAddr::V4(addr)) => {
            FamilyKey::V4(FrontendKey::whole_address(addr.into()))
        }
        FrontendAt::WholeAddress(IpAddr::V6(addr)) => {
            FamilyKey::V6(FrontendKey::whole_address(addr.into()))
        }
    }
}

/// The service id is always matched in full: its 32 bits come before those of the range. The kernel compares bytes, and so does
/// the programs' key: the id lies there as the machine stores it.
fn range_key<A: Addr>(service: ServiceId, range: Cidr, addr: A) -> Key<RangeKey<A>>
where
    RangeKey<A>: aya::Pod,
{
    Key::new(32 + u32::from(range.prefix()), RangeKey { service, addr })
}
