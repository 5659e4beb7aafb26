//! Decides which service owns a frontend that two of them claim.
//!
//! Every service claims all its frontends, and all claims are kept. The first in order (older service, then namespace
//! and name, then the service's own order of ports) owns the address; when it leaves, the next one is the owner without
//! anyone having to remember it.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
};

use super::{Family, Frontend, FrontendKind, ObjectName, Protocol, Service, ServicePort, Warning};

/// What only one service port can own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceAddress {
    pub family: Family,
    /// `None` for a NodePort.
    pub addr: Option<IpAddr>,
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            addr,
            port,
            protocol,
        } = self;
        match addr {
            Some(addr) => write!(f, "{addr} port {port}/{protocol}"),
            None => write!(f, "node port {port}/{protocol} ({family})"),
        }
    }
}

/// A service port's wish for an address. The least claim wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    created: i64,
    pub service: ObjectName,
    /// Index among the service's ports.
    port: u32,
}

/// All claims of all services.
#[derive(Default, Debug)]
pub struct Claims {
    owners: HashMap<ServiceAddress, Claim>,
    /// Those behind the owner, in ascending order. Few places have any.
    others: HashMap<ServiceAddress, Vec<Claim>>,
}

impl Claims {
    /// Who has the address?
    pub fn owner(&self, address: &ServiceAddress) -> Option<&Claim> {
        self.owners.get(address)
    }

    /// Who has the address next, should its owner leave?
    pub fn runner_up(&self, address: &ServiceAddress) -> Option<&Claim> {
        self.others.get(address)?.first()
    }

    pub fn insert(&mut self, address: ServiceAddress, claim: Claim) {
        let mut owner = match self.owners.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(claim);
                return;
            }
            Entry::Occupied(owner) => owner,
        };
        if claim == *owner.get() {
            return;
        }
        let behind = if claim < *owner.get() {
            owner.insert(claim)
        } else {
            claim
        };
        let others = self.others.entry(address).or_default();
        if let Err(at) = others.binary_search(&behind) {
            others.insert(at, behind);
        }
    }

    pub fn remove(&mut self, address: &ServiceAddress, claim: &Claim) {
        let is_owner = self.owners.get(address) == Some(claim);
        let Some(others) = self.others.get_mut(address) else {
            if is_owner {
                self.owners.remove(address);
            }
            return;
        };
        if is_owner {
            self.owners.insert(*address, others.remove(0));
        } else if let Ok(at) = others.binary_search(claim) {
            others.remove(at);
        }
        if others.is_empty() {
            self.others.remove(address);
        }
    }

    /// The addresses that `service` claims and another one has.
    pub fn lost(&self, service: &Service) -> Vec<Warning> {
        if self.others.is_empty() {
            return Vec::new();
        }
        let conflict = |(address, claim): (ServiceAddress, Claim)| {
            let owner = self.owner(&address).filter(|owner| **owner != claim)?;
            Some(Warning::FrontendConflict {
                address,
                winner: owner.service.clone(),
                loser: claim.service,
            })
        };
        of(service).into_iter().filter_map(conflict).collect()
    }

    /// The frontends that port number `index` of `service` owns in `family`, sorted.
    pub fn owned(&self, service: &Service, index: usize, family: Family) -> Vec<Frontend> {
        let port = &service.ports[index];
        let claim = claim(service, index);
        frontends(service, port, family)
            .into_iter()
            .filter(|frontend| self.owner(&address_of(frontend, port, family)) == Some(&claim))
            .collect()
    }
}

/// Everything that `service` claims.
pub fn of(service: &Service) -> BTreeSet<(ServiceAddress, Claim)> {
    let mut claims = BTreeSet::new();
    for (index, port) in service.ports.iter().enumerate() {
        for &family in &service.families {
            for frontend in frontends(service, port, family) {
                claims.insert((address_of(&frontend, port, family), claim(service, index)));
            }
        }
    }
    claims
}

fn claim(service: &Service, port: usize) -> Claim {
    Claim {
        created: service.created,
        service: service.name.clone(),
        port: port as u32,
    }
}

fn address_of(frontend: &Frontend, port: &ServicePort, family: Family) -> ServiceAddress {
    ServiceAddress {
        family,
        addr: frontend.addr,
        port: frontend.port,
        protocol: port.protocol,
    }
}

/// Where the port would be reached if no other service were there: sorted, each address once. An address that the service
/// lists twice counts as the kind that asks for more: as load-balancer IP (with its source ranges) before external IP.
fn frontends(service: &Service, port: &ServicePort, family: Family) -> Vec<Frontend> {
    let at = |kind, addrs: &[IpAddr]| {
        addrs
            .iter()
            .filter(|&&addr| Family::of(addr) == family)
            .map(|&addr| Frontend {
                kind,
                addr: Some(addr),
                port: port.port,
            })
            .collect::<Vec<_>>()
    };
    let mut frontends = [
        at(FrontendKind::ClusterIp, &service.cluster_ips),
        at(FrontendKind::LoadBalancer, &service.load_balancer_ips),
        at(FrontendKind::ExternalIp, &service.external_ips),
    ]
    .concat();
    frontends.extend(port.node_port.map(|port| Frontend {
        kind: FrontendKind::NodePort,
        addr: None,
        port,
    }));
    frontends.sort_unstable();
    let mut seen = BTreeSet::new();
    frontends.retain(|frontend| seen.insert(frontend.addr));
    frontends
}
