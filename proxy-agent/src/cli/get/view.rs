//! The maps and the names, put together.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use proxy_common::abi::FrontendKind;

use crate::{
    datapath::Maps,
    notices::{self, ToldOf},
    plan::{BackendEntry, FrontendAt},
    state::{Name, Names, Place},
};

/// One service port of one family, as the maps have it.
pub struct ServicePort {
    pub id: u32,
    pub name: Name,
    /// Without those that refuse.
    pub frontends: BTreeMap<FrontendAt, FrontendKind>,
    /// By endpoint; those that new or old flows use.
    pub backends: Vec<(u32, BackendEntry)>,
}

/// What is shown of a datapath.
pub struct View {
    pub maps: Maps,
    /// By name; where a name is not known, what stands for it.
    pub services: Vec<ServicePort>,
    /// What is told of Services, those without a service port among them.
    pub told: Vec<ToldOf>,
}

impl View {
    /// Reads the maps of `place`. `namespace` chooses services, `None` all.
    pub fn read(place: &Place, namespace: Option<&str>) -> Result<Self> {
        let maps = place.pins().open_maps()?;
        let image = maps.image()?;
        let names = Names::read(&place.names())?;
        let mut told = notices::read(&place.names())?.services;
        told.retain(|one| namespace.is_none_or(|wanted| one.namespace == wanted));
        let mut frontends: HashMap<u32, BTreeMap<_, _>> = HashMap::new();
        for (at, to) in image.frontends {
            if to.kind() != FrontendKind::Refuse {
                let own = frontends.entry(to.service()).or_default();
                own.insert(at, to.kind());
            }
        }
        let mut backends: HashMap<u32, Vec<_>> = HashMap::new();
        for (id, entry) in image.backends {
            if entry.flags != 0 {
                backends.entry(entry.service).or_default().push((id, entry));
            }
        }
        let mut services: Vec<_> = image
            .services
            .into_keys()
            .map(|id| (id, names.get(id)))
            .filter(|(_, name)| namespace.is_none_or(|wanted| name.namespace == wanted))
            .map(|(id, name)| {
                let mut backends = backends.remove(&id).unwrap_or_default();
                backends.sort_unstable_by_key(|(_, entry)| entry.socket);
                ServicePort {
                    id,
                    name,
                    frontends: frontends.remove(&id).unwrap_or_default(),
                    backends,
                }
            })
            .collect();
        services.sort_unstable_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        Ok(Self {
            maps,
            services,
            told,
        })
    }
}

impl ServicePort {
    /// How many backends have one of these flags.
    pub fn count(&self, flags: u16) -> usize {
        let all = self.backends.iter();
        all.filter(|(_, entry)| entry.flags & flags != 0).count()
    }
}
