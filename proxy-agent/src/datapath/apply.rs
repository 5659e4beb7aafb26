//! Operations of the plan -> map writes.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues, lpm_trie::Key},
    util::nr_cpus,
};
use proxy_common::{
    abi::{Backend, Counter, FrontendKey, FrontendRef, RangeKey, ServiceCounter},
    addr::{Addr, Be16, Ip4, Ip6},
};

use super::{
    Datapath,
    maps::{Maps, remove},
};
use crate::{
    model::{Cidr, Family},
    plan::{BackendEntry, FrontendAt, Op},
};

impl Datapath {
    /// Does the operations in their order. At an error those before it are done and those after it are not.
    pub fn apply(&mut self, ops: &[Op]) -> Result<()> {
        for op in ops {
            write(&mut self.maps, op).with_context(|| format!("writing {op}"))?;
        }
        Ok(())
    }
}

fn write(maps: &mut Maps, op: &Op) -> Result<()> {
    match *op {
        Op::Gate { word, bits } => maps.gate.set(word, bits, 0)?,
        Op::ClearServiceCount { id } => {
            clear(&mut maps.service_counts, id, ServiceCounter::default())?;
        }
        Op::ClearBackendCount { id } => clear(&mut maps.backend_counts, id, Counter::default())?,
        Op::Backend { id, entry } => write_backend(maps, id, entry)?,
        Op::AddRange { service, range } => match range.addr() {
            IpAddr::V4(addr) => {
                let key = range_key(service, range, Ip4::from(addr));
                maps.v4.source_ranges.insert(&key, 1, 0)?;
            }
            IpAddr::V6(addr) => {
                let key = range_key(service, range, Ip6::from(addr));
                maps.v6.source_ranges.insert(&key, 1, 0)?;
            }
        },
        Op::RemoveRange { service, range } => match range.addr() {
            IpAddr::V4(addr) => {
                let key = range_key(service, range, Ip4::from(addr));
                gone(maps.v4.source_ranges.remove(&key))?;
            }
            IpAddr::V6(addr) => {
                let key = range_key(service, range, Ip6::from(addr));
                gone(maps.v6.source_ranges.remove(&key))?;
            }
        },
        Op::Slots { base, ref backends } => {
            for (slot, id) in (base..).zip(backends) {
                maps.slots.set(slot, *id, 0)?;
            }
        }
        Op::Service { id, value } => maps.services.insert(id, value, 0)?,
        Op::RemoveService { id } => remove(&mut maps.services, &id)?,
        Op::Frontend { at, to } => write_frontend(maps, at, to)?,
        Op::RemoveFrontend { at } => remove_frontend(maps, at)?,
    }
    Ok(())
}

fn write_backend(maps: &mut Maps, id: u32, entry: BackendEntry) -> Result<(), MapError> {
    let port = Be16::new(entry.socket.port());
    match entry.socket {
        SocketAddr::V4(socket) => {
            let value = backend(Ip4::from(*socket.ip()), port, entry);
            maps.v4.backends.set(id, value, 0)
        }
        SocketAddr::V6(socket) => {
            let value = backend(Ip6::from(*socket.ip()), port, entry);
            maps.v6.backends.set(id, value, 0)
        }
    }
}

fn backend<A>(addr: A, port: Be16, entry: BackendEntry) -> Backend<A> {
    let BackendEntry {
        socket: _,
        flags,
        generation,
        service,
    } = entry;
    Backend {
        addr,
        port,
        flags,
        generation,
        service,
    }
}

fn write_frontend(
    maps: &mut Maps,
    at: FrontendAt,
    FrontendRef(to): FrontendRef,
) -> Result<(), MapError> {
    match frontend_key(at) {
        FamilyKey::V4(key) => maps.v4.frontends.insert(key, to, 0),
        FamilyKey::V6(key) => maps.v6.frontends.insert(key, to, 0),
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
fn range_key<A: Addr>(service: u32, range: Cidr, addr: A) -> Key<RangeKey<A>>
where
    RangeKey<A>: aya::Pod,
{
    Key::new(32 + u32::from(range.prefix()), RangeKey { service, addr })
}

fn clear<V: aya::Pod>(counts: &mut PerCpuArray<MapData, V>, id: u32, zero: V) -> Result<()> {
    let cpus = nr_cpus().map_err(|(what, error)| anyhow::Error::new(error).context(what))?;
    counts.set(id, PerCpuValues::try_from(vec![zero; cpus])?, 0)?;
    Ok(())
}

fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        done => done,
    }
}
