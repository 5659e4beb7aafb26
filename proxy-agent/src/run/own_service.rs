//! The service of the API servers as the datapath has it: what an agent knows of it before it has asked anybody.
//!
//! In: the names and the maps that the agent before left. Out: the Service and its EndpointSlices, as far as the maps tell.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use proxy_common::abi::{FrontendKind, ServiceId};
use serde_json::{Value, json};
use tracing::debug;

use super::Args;
use crate::{
    model::{Family, Protocol},
    plan::{FrontendAt, Image},
    source::kube::{Before, OWN},
    state::{Name, Names},
};

/// What was programmed of it before this agent.
pub fn before(args: &Args) -> Before {
    let Ok(names) = Names::read(&args.place.names()) else {
        return Before::default();
    };
    let own = |name: &Name| *name.namespace == *OWN.namespace && *name.service == *OWN.name;
    let ports: BTreeMap<ServiceId, String> = names
        .0
        .into_iter()
        .filter(|(_, name)| own(name))
        .map(|(id, name)| (ServiceId(id), name.port))
        .collect();
    if ports.is_empty() {
        return Before::default();
    }
    let image = args.place.pins().open_maps();
    match image.and_then(|maps| maps.image()) {
        Ok(image) => read(&image, &ports).unwrap_or_else(|error| {
            debug!("{} as it is in the maps: {error:#}", *OWN);
            Before::unknown()
        }),
        // Of an agent with another layout.
        Err(_) => Before::unknown(),
    }
}

/// `ports` are the names of its ports, by the id of the service port.
fn read(image: &Image, ports: &BTreeMap<ServiceId, String>) -> Result<Before> {
    let Some(slices) = slices(image, ports) else {
        return Ok(Before::default());
    };
    Before::of(&service(image, ports), &slices).context("what the maps hold")
}

fn service(image: &Image, ports: &BTreeMap<ServiceId, String>) -> Value {
    let mut cluster_ips = BTreeSet::new();
    let mut all: BTreeMap<_, (Option<u16>, Option<u16>)> = BTreeMap::new();
    for (at, to) in &image.frontends {
        let Some(name) = ports.get(&to.service()) else {
            continue;
        };
        match *at {
            FrontendAt::Port {
                addr,
                port,
                protocol,
            } if to.kind() == FrontendKind::ClusterIp => {
                cluster_ips.insert(addr);
                all.entry((name, protocol)).or_default().0 = Some(port);
            }
            FrontendAt::NodePort { port, protocol, .. } => {
                all.entry((name, protocol)).or_default().1 = Some(port);
            }
            FrontendAt::Port { .. } | FrontendAt::WholeAddress(_) => {}
        }
    }
    let has_node_port = all.values().any(|(_, node_port)| node_port.is_some());
    let ports: Vec<_> = all
        .into_iter()
        .filter_map(|((name, protocol), (port, node_port))| {
            Some(json!({
                "name": name, "protocol": protocol.to_string(), "port": port?, "nodePort": node_port.unwrap_or(0),
            }))
        })
        .collect();
    json!({
        "metadata": {"namespace": &*OWN.namespace, "name": &*OWN.name},
        "spec": {
            "type": if has_node_port { "NodePort" } else { "ClusterIP" },
            "clusterIP": cluster_ips.first(),
            "clusterIPs": cluster_ips,
            "ports": ports,
        },
    })
}

/// `None` where it had no endpoint.
fn slices(image: &Image, ports: &BTreeMap<ServiceId, String>) -> Option<Vec<Value>> {
    let protocols: BTreeMap<ServiceId, Protocol> = image
        .frontends
        .iter()
        .filter_map(|(at, to)| match at {
            FrontendAt::Port { protocol, .. } | FrontendAt::NodePort { protocol, .. } => {
                Some((to.service(), *protocol))
            }
            FrontendAt::WholeAddress(_) => None,
        })
        .collect();
    // Endpoints of one slice have the same ports.
    let mut groups: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for entry in image
        .backends
        .values()
        .filter(|entry| !entry.flags.is_empty())
    {
        let known = ports.get(&entry.service).zip(protocols.get(&entry.service));
        let Some((name, protocol)) = known else {
            continue;
        };
        let addr = entry.socket.ip();
        let group = (Family::of(addr), name, *protocol, entry.socket.port());
        let endpoint = json!({"addresses": [addr], "conditions": {"ready": true}});
        groups.entry(group).or_default().push(endpoint);
    }
    let slices = groups.into_iter().enumerate();
    let slices: Vec<_> = slices
        .map(|(number, ((family, name, protocol, port), endpoints))| {
            json!({
                "metadata": {
                    "namespace": &*OWN.namespace,
                    "name": format!("{}-as-it-was-{number}", OWN.name),
                    "labels": {"kubernetes.io/service-name": &*OWN.name},
                },
                "addressType": family.to_string(),
                "ports": [{"name": name, "protocol": protocol.to_string(), "port": port}],
                "endpoints": endpoints,
            })
        })
        .collect();
    (!slices.is_empty()).then_some(slices)
}

#[cfg(test)]
mod tests {
    use proxy_common::abi::{BackendFlags, BackendId, FrontendRef, Generation};

    use super::*;
    use crate::{model::Event, plan::BackendEntry};

    fn image(backends: &[(u32, &str)]) -> Image {
        let at = |addr: &str| FrontendAt::Port {
            addr: addr.parse().unwrap(),
            port: 443,
            protocol: Protocol::Tcp,
        };
        let entry = |(service, socket): &(u32, &str)| BackendEntry {
            socket: socket.parse().unwrap(),
            flags: BackendFlags::SERVING,
            generation: Generation::FIRST,
            service: ServiceId(*service),
        };
        let frontend = |id| FrontendRef::new(ServiceId(id), FrontendKind::ClusterIp);
        Image {
            frontends: [
                (at("10.96.0.1"), frontend(3)),
                (at("fd00::1"), frontend(4)),
                (at("10.96.0.9"), frontend(5)),
            ]
            .into(),
            backends: (1..)
                .map(BackendId)
                .zip(backends.iter().map(entry))
                .collect(),
            ..Image::default()
        }
    }

    #[test]
    fn the_service_and_its_endpoints_are_read_from_the_maps() {
        let ports = BTreeMap::from([3, 4].map(|id| (ServiceId(id), "https".to_owned())));
        let backends = [
            (3, "192.0.2.1:6443"),
            (4, "[2001:db8::1]:6443"),
            (5, "192.0.2.9:80"),
        ];
        let before = read(&image(&backends), &ports).unwrap();
        let events = before.events();
        let [
            Event::ServiceUpserted(service),
            Event::SliceUpserted(v4),
            Event::SliceUpserted(v6),
        ] = events
        else {
            panic!("{events:?}");
        };
        assert_eq!(service.name, *OWN);
        assert_eq!(service.cluster_ips.len(), 2);
        assert_eq!((service.ports.len(), service.ports[0].port), (1, 443));
        for (slice, addr) in [(v4, "192.0.2.1"), (v6, "2001:db8::1")] {
            assert_eq!(slice.endpoints.len(), 1);
            assert_eq!(slice.endpoints[0].addr.to_string(), addr);
        }
    }

    #[test]
    fn a_service_that_had_no_endpoint_is_not_waited_for() {
        let ports = BTreeMap::from([(ServiceId(3), "https".to_owned())]);
        let before = read(&image(&[(5, "192.0.2.9:80")]), &ports).unwrap();
        assert_eq!(before, Before::default());
    }
}
