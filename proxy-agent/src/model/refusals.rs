//! Takes refused addresses out of objects on this node, and remembers them for those who ask why.
//!
//! In: objects as they came. Out: the same without what no object may have here. The one rule: a refused address costs
//! itself; the rest of the object is in force.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    EndpointSlice, ObjectName, Ranges, Service,
    warning::{RefusedAddress, Warning},
};

#[derive(Debug)]
pub struct Refusals {
    /// Which addresses no object may name, besides those that none may anywhere.
    pub ranges: Ranges,
    /// Broadcast addresses of this node's subnets, which no object may name either.
    pub broadcasts: BTreeSet<IpAddr>,
    /// Are external IPs served?
    pub external_ips: bool,
    of_services: HashMap<ObjectName, Vec<RefusedAddress>>,
    of_slices: HashMap<ObjectName, Vec<RefusedAddress>>,
}

const BROADCAST: &str = "a broadcast address of this node's subnets";
const NO_EXTERNAL_IPS: &str = "external IPs are switched off (--allow-service-external-ips)";

impl Default for Refusals {
    fn default() -> Self {
        Self {
            ranges: Ranges::default(),
            broadcasts: BTreeSet::new(),
            external_ips: true,
            of_services: HashMap::new(),
            of_slices: HashMap::new(),
        }
    }
}

impl Refusals {
    /// Takes out of `service` the addresses that no service may have. Tells which, if they are others than before.
    pub fn take_service(&mut self, service: &mut Service) -> Option<Vec<Warning>> {
        let Service {
            name,
            cluster_ips,
            external_ips,
            load_balancer_ips,
            ..
        } = service;
        let mut refused = Vec::new();
        if !self.external_ips {
            let switched_off = external_ips.drain(..);
            refused.extend(switched_off.map(|addr| (addr, NO_EXTERNAL_IPS.into())));
        }
        for addresses in [cluster_ips, external_ips, load_balancer_ips] {
            addresses.retain(|&addr| match self.ranges.refuse(addr) {
                None => true,
                Some(reason) => {
                    refused.push((addr, reason));
                    false
                }
            });
        }
        let warnings = refused.iter().map(|one| not_served(name, one)).collect();
        remember(&mut self.of_services, name, refused).then_some(warnings)
    }

    /// Takes out of `slice` the endpoints that no slice may name. Tells which, if they are others than before.
    pub fn take_slice(&mut self, slice: &mut EndpointSlice) -> Option<Vec<Warning>> {
        let EndpointSlice {
            name, endpoints, ..
        } = slice;
        let mut refused = Vec::new();
        endpoints.retain(|endpoint| match self.ranges.refuse(endpoint.addr) {
            None => true,
            Some(reason) => {
                refused.push((endpoint.addr, reason));
                false
            }
        });
        let warnings = refused.iter().map(|one| not_used(name, one)).collect();
        remember(&mut self.of_slices, name, refused).then_some(warnings)
    }

    pub fn forget_service(&mut self, name: &ObjectName) {
        self.of_services.remove(name);
    }

    pub fn forget_slice(&mut self, name: &ObjectName) {
        self.of_slices.remove(name);
    }

    /// What is refused of a service and its slices now.
    pub fn of(&self, service: &Service, slices: &[EndpointSlice]) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let known = self.of_services.get(&service.name).into_iter().flatten();
        warnings.extend(known.map(|one| not_served(&service.name, one)));
        if !self.of_slices.is_empty() {
            for slice in slices {
                let known = self.of_slices.get(&slice.name).into_iter().flatten();
                warnings.extend(known.map(|one| not_used(&slice.name, one)));
            }
        }
        if !self.broadcasts.is_empty() {
            let Service {
                cluster_ips,
                external_ips,
                load_balancer_ips,
                ..
            } = service;
            let addresses = [cluster_ips, external_ips, load_balancer_ips];
            let broadcast = |addr: &&IpAddr| self.broadcasts.contains(addr);
            for &addr in addresses.into_iter().flatten().filter(broadcast) {
                warnings.push(not_served(&service.name, &(addr, BROADCAST.into())));
            }
            for slice in slices {
                let addresses = slice.endpoints.iter().map(|endpoint| &endpoint.addr);
                for &addr in addresses.filter(broadcast) {
                    warnings.push(not_used(&slice.name, &(addr, BROADCAST.into())));
                }
            }
        }
        warnings
    }
}

fn not_served(service: &ObjectName, (addr, reason): &RefusedAddress) -> Warning {
    Warning::AddressRefused {
        service: service.clone(),
        addr: *addr,
        reason: reason.clone(),
    }
}

fn not_used(slice: &ObjectName, (addr, reason): &RefusedAddress) -> Warning {
    Warning::EndpointRefused {
        slice: slice.clone(),
        addr: *addr,
        reason: reason.clone(),
    }
}

/// Keeps what was refused of an object, if anything. Is it something else than before?
fn remember(
    all: &mut HashMap<ObjectName, Vec<RefusedAddress>>,
    name: &ObjectName,
    refused: Vec<RefusedAddress>,
) -> bool {
    if refused.is_empty() {
        return all.remove(name).is_some();
    }
    let is_new = all.get(name) != Some(&refused);
    if is_new {
        all.insert(name.clone(), refused);
    }
    is_new
}
