//! What follows from the services for those who ask: health-check node ports, and how many service ports a Local policy leaves
//! without an endpoint here. Kept per service, so that a change costs what the changed service costs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{
    DesiredService, Family, ObjectName, OnEmpty, Scope, Service, ServiceType, TrafficPolicy,
};

#[derive(Default, Debug)]
pub struct Observed {
    checks: BTreeMap<ObjectName, Check>,
    no_local: HashMap<ObjectName, NoLocal>,
    total: NoLocal,
}

/// A health-check node port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub port: u16,
    /// The number of ready endpoints on this node, in each family that the service has.
    pub local_endpoints: BTreeMap<Family, usize>,
}

/// Service ports (counted per family) whose policy is Local, that have endpoints and none on this node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NoLocal {
    pub internal: i64,
    pub external: i64,
}

impl Observed {
    /// Takes in the state of a service: `None` if it is not there.
    pub fn update(
        &mut self,
        name: &ObjectName,
        service: Option<&Service>,
        desired: &[DesiredService],
    ) {
        match service.and_then(|service| check(service, desired)) {
            Some(check) => self.checks.insert(name.clone(), check),
            None => self.checks.remove(name),
        };
        let now = no_local(desired);
        let before = if now == NoLocal::default() {
            self.no_local.remove(name)
        } else {
            self.no_local.insert(name.clone(), now)
        };
        let before = before.unwrap_or_default();
        self.total.internal += now.internal - before.internal;
        self.total.external += now.external - before.external;
    }

    pub const fn checks(&self) -> &BTreeMap<ObjectName, Check> {
        &self.checks
    }

    /// The sum over all services.
    pub const fn no_local(&self) -> NoLocal {
        self.total
    }
}

/// Only a load balancer that is to send traffic to nodes with endpoints has something to ask.
fn check(service: &Service, desired: &[DesiredService]) -> Option<Check> {
    if service.kind != ServiceType::LoadBalancer || service.external_policy != TrafficPolicy::Local
    {
        return None;
    }
    let mut addresses: BTreeMap<Family, BTreeSet<_>> = service
        .families
        .iter()
        .map(|&family| (family, BTreeSet::new()))
        .collect();
    for port in desired {
        let local = port
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.local && endpoint.conditions.ready);
        let of_family = addresses.entry(port.key.family).or_default();
        of_family.extend(local.map(|endpoint| endpoint.addr));
    }
    Some(Check {
        port: service.health_check_node_port?,
        local_endpoints: addresses
            .into_iter()
            .map(|(family, addresses)| (family, addresses.len()))
            .collect(),
    })
}

fn no_local(desired: &[DesiredService]) -> NoLocal {
    let is_without = |scope: &Scope| {
        i64::from(
            scope.policy == TrafficPolicy::Local
                && scope.endpoints.is_empty()
                && scope.on_empty == OnEmpty::Drop,
        )
    };
    desired.iter().fold(NoLocal::default(), |sum, port| {
        let is_external = port
            .frontends
            .iter()
            .any(|frontend| frontend.kind.is_external());
        NoLocal {
            internal: sum.internal + is_without(&port.internal),
            external: sum.external + is_without(&port.external) * i64::from(is_external),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Asks, Conditions, EndpointSlice, Event, Kind, Protocol, ServicePort, SliceEndpoint,
        SlicePort, Store,
    };

    const READY: Conditions = Conditions {
        ready: true,
        serving: true,
        terminating: false,
    };
    const LEAVING: Conditions = Conditions {
        ready: false,
        serving: true,
        terminating: true,
    };

    fn name() -> ObjectName {
        ObjectName::new("default", "svc")
    }

    fn service() -> Service {
        let port = |name: &str, port| ServicePort {
            name: name.into(),
            protocol: Protocol::Tcp,
            port,
            node_port: Some(30_000 + port),
        };
        Service {
            name: name(),
            created: 0,
            kind: ServiceType::LoadBalancer,
            families: vec![Family::Ipv4, Family::Ipv6],
            cluster_ips: vec![],
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: vec![],
            external_policy: TrafficPolicy::Local,
            internal_policy: TrafficPolicy::Cluster,
            affinity: None,
            health_check_node_port: Some(32_000),
            asks: Asks::default(),
            ports: vec![port("a", 80), port("b", 81)],
        }
    }

    /// IPv4 endpoints of both ports: last part of the address, node, conditions.
    fn observe(service: Service, endpoints: &[(u8, &str, Conditions)]) -> Observed {
        let port = |name: &str, number| SlicePort {
            name: name.into(),
            protocol: Protocol::Tcp,
            number,
        };
        let mut store = Store::new("node1");
        store.apply(Event::ServiceUpserted(service));
        store.apply(Event::SliceUpserted(EndpointSlice {
            name: ObjectName::new("default", "svc-1"),
            service: "svc".into(),
            family: Family::Ipv4,
            ports: vec![port("a", 8080), port("b", 9090)],
            endpoints: endpoints
                .iter()
                .map(|&(last, node, conditions)| SliceEndpoint {
                    addr: std::net::IpAddr::from([10, 244, 1, last]),
                    node: Some(node.into()),
                    conditions,
                    zone_hints: vec![],
                    node_hints: vec![],
                    weight: crate::model::WEIGHT,
                })
                .collect(),
            ignored: vec![],
            triggered: None,
        }));
        store.apply(Event::Synced(Kind::Service));
        store.apply(Event::Synced(Kind::EndpointSlice));
        let mut observed = Observed::default();
        observed.update(&name(), store.service(&name()), &store.desired(&name()));
        observed
    }

    #[test]
    fn a_check_counts_the_addresses_of_ready_endpoints_on_this_node() {
        let endpoints = [
            (1, "node1", READY),
            (2, "node1", READY),
            (3, "node1", LEAVING),
            (4, "node2", READY),
        ];
        let observed = observe(service(), &endpoints);
        let check = &observed.checks()[&name()];
        assert_eq!(check.port, 32_000);
        let counts = [(Family::Ipv4, 2), (Family::Ipv6, 0)];
        assert_eq!(check.local_endpoints, BTreeMap::from(counts));
    }

    #[test]
    fn only_a_load_balancer_with_local_policy_and_a_port_has_a_check() {
        for service in [
            Service {
                external_policy: TrafficPolicy::Cluster,
                ..service()
            },
            Service {
                kind: ServiceType::NodePort,
                ..service()
            },
            Service {
                health_check_node_port: None,
                ..service()
            },
        ] {
            assert!(observe(service, &[(1, "node1", READY)]).checks().is_empty());
        }
    }

    #[test]
    fn ports_without_a_local_endpoint_are_counted_while_they_are_there() {
        let mut observed = observe(service(), &[(4, "node2", READY)]);
        // Two ports; the IPv6 ones have no endpoint anywhere and refuse.
        let counted = NoLocal {
            internal: 0,
            external: 2,
        };
        assert_eq!(observed.no_local(), counted);
        observed.update(&name(), None, &[]);
        assert_eq!(observed.no_local(), NoLocal::default());
        assert!(observed.checks().is_empty());
    }
}
