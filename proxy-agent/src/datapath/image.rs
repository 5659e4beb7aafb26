//! Map contents -> what the plan starts from.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use aya::Pod;
use proxy_common::abi::{
    Backend, BackendId, FrontendKey, FrontendRef, Generation, RangeKey, names,
};

use super::{
    Maps,
    maps::{FamilyMaps, MapAddr, entries},
};
use crate::{
    model::{Cidr, Family, Protocol},
    plan::{BackendEntry, FrontendAt, Image},
};

impl Maps {
    /// Reads everything that a plan writes.
    pub fn image(&self) -> Result<Image> {
        let mut image = Image {
            gate: self.gate.all().context(names::GATE)?,
            services: entries(&self.services)
                .context(names::SERVICES)?
                .into_iter()
                .collect(),
            ..Image::default()
        };
        let extents = image
            .services
            .values()
            .flat_map(|service| [service.internal, service.external, service.short_circuit])
            .flat_map(|extent| extent.slots());
        let end = extents
            .clone()
            .max()
            .map_or(0, |last| last.0.saturating_add(1));
        let slots = self.slots.below(end).context(names::SLOTS)?;
        image.slots = extents
            .filter_map(|slot| Some((slot, *slots.get(slot.0 as usize)?)))
            .collect();
        read_family(&self.v4, 0, &mut image)?;
        read_family(&self.v6, 1, &mut image)?;
        Ok(image)
    }
}

fn read_family<A>(maps: &FamilyMaps<A>, family: usize, image: &mut Image) -> Result<()>
where
    A: MapAddr,
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
    RangeKey<A>: Pod,
{
    let model_family = [Family::Ipv4, Family::Ipv6][family];
    for (key, to) in entries(&maps.frontends).context(names::FRONTENDS[family])? {
        if let Some(at) = frontend_at(key, model_family) {
            image.frontends.insert(at, FrontendRef(to));
        }
    }
    for (id, backend) in (0..)
        .map(BackendId)
        .zip(maps.backends.all().context(names::BACKENDS[family])?)
    {
        // Ids are one space over both families: the other array knows an older life of this one.
        let known = image
            .backends
            .get(&id)
            .map_or(Generation::NONE, |entry: &BackendEntry| entry.generation);
        if backend.generation > known {
            image.backends.insert(id, backend_entry(backend));
        }
    }
    for key in maps.source_ranges.keys() {
        let key = key.context(names::SOURCE_RANGES[family])?;
        let RangeKey { service, addr } = key.data();
        let prefix = key.prefix_len().saturating_sub(32) as u8;
        image
            .ranges
            .extend(Cidr::new(addr.ip(), prefix).map(|range| (service, range)));
    }
    Ok(())
}

/// `None` for an entry that no agent writes.
fn frontend_at<A: MapAddr>(key: FrontendKey<A>, family: Family) -> Option<FrontendAt> {
    let port = key.port.get();
    if key.proto == 0 {
        return Some(FrontendAt::WholeAddress(key.addr.ip()));
    }
    let protocol = Protocol::from_number(u8::try_from(key.proto).ok()?)?;
    Some(if key.addr == A::ANY {
        FrontendAt::NodePort {
            family,
            port,
            protocol,
        }
    } else {
        FrontendAt::Port {
            addr: key.addr.ip(),
            port,
            protocol,
        }
    })
}

fn backend_entry<A: MapAddr>(backend: Backend<A>) -> BackendEntry {
    let Backend {
        addr,
        port,
        flags,
        generation,
        service,
    } = backend;
    BackendEntry {
        socket: SocketAddr::new(addr.ip(), port.get()),
        flags,
        generation,
        service,
    }
}
