//! The maps and the names, put together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::{Context, Result};
use proxy_common::abi::{BackendFlags, BackendId, FrontendKind, Service, ServiceId, names};

use crate::{
    datapath::Maps,
    model::Cidr,
    notices::{self, ToldOf},
    plan::{BackendEntry, FrontendAt},
    state::{Name, Names, Place},
};

/// One service port of one family, as the maps have it.
pub struct ServicePort {
    pub id: ServiceId,
    pub name: Name,
    pub value: Service,
    /// Of sources that may reach its load balancer's addresses.
    pub ranges: Vec<Cidr>,
    /// Without those that refuse.
    pub frontends: BTreeMap<FrontendAt, FrontendKind>,
    /// By endpoint; those that new or old flows use.
    pub backends: Vec<(BackendId, BackendEntry)>,
}

/// What is shown of a datapath.
pub struct View {
    pub maps: Maps,
    /// Jiffies per second of this kernel.
    pub hz: u32,
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
        let mut frontends: HashMap<ServiceId, BTreeMap<_, _>> = HashMap::new();
        for (at, to) in image.frontends {
            if to.kind() != FrontendKind::Refuse {
                let own = frontends.entry(to.service()).or_default();
                own.insert(at, to.kind());
            }
        }
        let mut ranges: HashMap<ServiceId, Vec<_>> = HashMap::new();
        for (id, range) in image.ranges {
            ranges.entry(id).or_default().push(range);
        }
        let mut backends: HashMap<ServiceId, Vec<_>> = HashMap::new();
        for (id, entry) in image.backends {
            if !entry.flags.is_empty() {
                backends.entry(entry.service).or_default().push((id, entry));
            }
        }
        let mut services: Vec<_> = image
            .services
            .into_iter()
            .map(|(id, value)| (id, value, names.get(id)))
            .filter(|(_, _, name)| namespace.is_none_or(|wanted| name.namespace == wanted))
            .map(|(id, value, name)| {
                let mut backends = backends.remove(&id).unwrap_or_default();
                backends.sort_unstable_by_key(|(_, entry)| entry.socket);
                ServicePort {
                    id,
                    name,
                    value,
                    ranges: ranges.remove(&id).unwrap_or_default(),
                    frontends: frontends.remove(&id).unwrap_or_default(),
                    backends,
                }
            })
            .collect();
        services.sort_unstable_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        let config = maps.config.get(&0, 0).context(names::CONFIG)?;
        Ok(Self {
            // As `Config::for_hz` has it.
            hz: config.tcp_idle / 86_400,
            maps,
            services,
            told,
        })
    }
}

/// What becomes of new connections to an endpoint with these flags, in a word.
pub const fn state_of(flags: BackendFlags) -> &'static str {
    if flags.intersects(BackendFlags::CHOSEN) {
        "in-use"
    } else {
        "draining"
    }
}

/// Where an endpoint with these flags is, seen from this node, in a word.
pub const fn place_of(flags: BackendFlags) -> &'static str {
    if flags.contains(BackendFlags::HOST) {
        "this-node"
    } else if flags.contains(BackendFlags::LOCAL) {
        "local"
    } else {
        "remote"
    }
}

/// How many endpoints of one Service have one of these flags, a pod of two families or several ports counting once: the maps have
/// addresses and no pods.
pub fn endpoints<'a>(ports: impl Iterator<Item = &'a ServicePort>, flags: BackendFlags) -> usize {
    let mut addresses: [BTreeSet<IpAddr>; 2] = Default::default();
    let mut most = 0;
    for service in ports {
        let used = service.backends.iter();
        let used = used.filter(|(_, entry)| entry.flags.intersects(flags));
        let sockets: BTreeSet<_> = used.map(|(_, entry)| entry.socket).collect();
        most = most.max(sockets.len());
        for socket in sockets {
            addresses[usize::from(socket.is_ipv6())].insert(socket.ip());
        }
    }
    let [v4, v6] = addresses.map(|of_family| of_family.len());
    most.max(v4).max(v6)
}

impl ServicePort {
    /// How many backends have one of these flags.
    pub fn count(&self, flags: BackendFlags) -> usize {
        let all = self.backends.iter();
        all.filter(|(_, entry)| entry.flags.intersects(flags))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_two_families_and_ports_counts_once() {
        let port = |sockets: &[&str]| ServicePort {
            id: ServiceId(1),
            name: Names::default().get(ServiceId(1)),
            value: Service::default(),
            ranges: Vec::new(),
            frontends: BTreeMap::new(),
            backends: sockets
                .iter()
                .map(|socket| {
                    let entry = BackendEntry {
                        socket: socket.parse().unwrap(),
                        flags: BackendFlags::SERVING,
                        generation: Default::default(),
                        service: ServiceId(1),
                    };
                    (BackendId(1), entry)
                })
                .collect(),
        };
        let ports = [
            port(&["10.0.0.1:80", "10.0.0.2:80"]),
            port(&["10.0.0.1:81", "10.0.0.2:81"]),
            port(&["[fd00::1]:80", "[fd00::2]:80"]),
        ];
        assert_eq!(endpoints(ports.iter(), BackendFlags::SERVING), 2);
        assert_eq!(endpoints(ports.iter(), BackendFlags::LOCAL), 0);
        let on_one_host = port(&["10.0.0.1:80", "10.0.0.1:81"]);
        assert_eq!(endpoints([on_one_host].iter(), BackendFlags::SERVING), 2);
    }
}
