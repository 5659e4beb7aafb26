//! Service.

use std::{collections::HashSet, net::IpAddr};

use super::{
    Converted, FieldError, Result, annotations, choice, family, label, list, names, non_empty,
    object_name, objects as k8s, optional_port, port, port_name, protocol, service_address,
};
use crate::model::{self, Cidr, Family, Service, ServicePort, ServiceType, TrafficPolicy};

/// Another proxy serves it.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Seconds, as the API server sets it.
const DEFAULT_AFFINITY: i32 = 10800;
const MAX_AFFINITY: i32 = 86400;

/// A service without a cluster IP is served at its other addresses (no API server allocates one to a file); one whose
/// cluster IP is `None` is headless.
pub fn service(object: &k8s::Service) -> Result<Converted<Service>> {
    let name = object_name(&object.metadata, names::label)?;
    let spec = object
        .spec
        .as_ref()
        .ok_or_else(|| FieldError::new("spec", "is missing"))?;
    if label(&object.metadata, PROXY_NAME_LABEL).is_some() {
        return Ok(Converted::skipped("another proxy serves it"));
    }
    let Some(kind) = service_type(spec)? else {
        return Ok(Converted::skipped("an ExternalName has no addresses"));
    };
    let Some(cluster_ips) = cluster_ips(spec)? else {
        return Ok(Converted::skipped("it is headless"));
    };
    let external_policy = policy("spec.externalTrafficPolicy", &spec.external_traffic_policy)?;
    Ok(Converted::Served(Service {
        name,
        created: object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.as_second()),
        kind,
        families: families(spec, &cluster_ips)?,
        cluster_ips,
        external_ips: addresses("spec.externalIPs", list(&spec.external_ips))?,
        load_balancer_ips: match kind {
            ServiceType::LoadBalancer => load_balancer_ips(object)?,
            ServiceType::ClusterIp | ServiceType::NodePort => Vec::new(),
        },
        source_ranges: source_ranges(spec)?,
        external_policy,
        internal_policy: policy("spec.internalTrafficPolicy", &spec.internal_traffic_policy)?,
        affinity: affinity(spec)?,
        health_check_node_port: match (kind, external_policy) {
            (ServiceType::LoadBalancer, TrafficPolicy::Local) => {
                optional_port("spec.healthCheckNodePort", spec.health_check_node_port)?
            }
            _ => None,
        },
        asks: annotations::asks(&object.metadata),
        ports: ports(spec, kind)?,
    }))
}

/// `None` for an ExternalName.
fn service_type(spec: &k8s::ServiceSpec) -> Result<Option<ServiceType>> {
    let words = [
        ("ClusterIP", Some(ServiceType::ClusterIp)),
        ("NodePort", Some(ServiceType::NodePort)),
        ("LoadBalancer", Some(ServiceType::LoadBalancer)),
        ("ExternalName", None),
    ];
    choice(
        "spec.type",
        &spec.type_,
        Some(ServiceType::ClusterIp),
        &words,
    )
}

/// `None` for a headless service.
fn cluster_ips(spec: &k8s::ServiceSpec) -> Result<Option<Vec<IpAddr>>> {
    let first = non_empty(&spec.cluster_ip);
    let all = list(&spec.cluster_ips);
    if first.or(all.first().map(String::as_str)) == Some("None") {
        return Ok(None);
    }
    match (first, all) {
        (Some(first), []) => Ok(Some(vec![service_address("spec.clusterIP", first)?])),
        (Some(first), [head, ..])
            if first != head && model::parse_address(first) != model::parse_address(head) =>
        {
            Err(FieldError::new(
                "spec.clusterIPs[0]",
                format!("{head:?} is not the same as clusterIP {first:?}"),
            ))
        }
        _ => addresses("spec.clusterIPs", all).map(Some),
    }
}

/// As `ipFamilies` says; without it, those of the cluster IPs; without those, IPv4. A dual-stack policy without
/// `ipFamilies` adds the other family.
fn families(spec: &k8s::ServiceSpec, cluster_ips: &[IpAddr]) -> Result<Vec<Family>> {
    let given = list(&spec.ip_families);
    let mut families = Vec::new();
    for (i, word) in given.iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        let family = family(&field, word)?;
        if families.contains(&family) {
            return Err(FieldError::new(field, format!("{word} is there already")));
        }
        families.push(family);
    }
    for (i, &addr) in cluster_ips.iter().enumerate() {
        let family = Family::of(addr);
        match families.contains(&family) {
            true => {}
            false if given.is_empty() => families.push(family),
            false => {
                return Err(FieldError::new(
                    format!("spec.clusterIPs[{i}]"),
                    format!("{addr} is {family}, which is not in ipFamilies"),
                ));
            }
        }
    }
    let words = [
        ("SingleStack", false),
        ("PreferDualStack", true),
        ("RequireDualStack", true),
    ];
    let dual_stack = choice("spec.ipFamilyPolicy", &spec.ip_family_policy, false, &words)?;
    if families.is_empty() {
        families.push(Family::Ipv4);
    }
    if dual_stack && given.is_empty() && families.len() == 1 {
        families.push(match families[0] {
            Family::Ipv4 => Family::Ipv6,
            Family::Ipv6 => Family::Ipv4,
        });
    }
    Ok(families)
}

fn addresses(field: &str, values: &[String]) -> Result<Vec<IpAddr>> {
    values
        .iter()
        .enumerate()
        .map(|(i, value)| service_address(&format!("{field}[{i}]"), value))
        .collect()
}

/// The addresses that the load balancer leaves in the packets which it sends here.
fn load_balancer_ips(object: &k8s::Service) -> Result<Vec<IpAddr>> {
    let ingress = object
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .map(|balancer| list(&balancer.ingress))
        .unwrap_or_default();
    let mut addrs = Vec::new();
    for (i, ingress) in ingress.iter().enumerate() {
        let field = format!("status.loadBalancer.ingress[{i}]");
        let words = [("VIP", true), ("Proxy", false)];
        let is_vip = choice(&format!("{field}.ipMode"), &ingress.ip_mode, true, &words)?;
        if let Some(ip) = non_empty(&ingress.ip).filter(|_| is_vip) {
            addrs.push(service_address(&format!("{field}.ip"), ip)?);
        }
    }
    Ok(addrs)
}

fn source_ranges(spec: &k8s::ServiceSpec) -> Result<Vec<Cidr>> {
    list(&spec.load_balancer_source_ranges)
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let field = format!("spec.loadBalancerSourceRanges[{i}]");
            text.parse::<Cidr>()
                .map_err(|error| FieldError::new(field, error.to_string()))
        })
        .collect()
}

fn policy(field: &str, value: &Option<String>) -> Result<TrafficPolicy> {
    let words = [
        ("Cluster", TrafficPolicy::Cluster),
        ("Local", TrafficPolicy::Local),
    ];
    choice(field, value, TrafficPolicy::Cluster, &words)
}

fn affinity(spec: &k8s::ServiceSpec) -> Result<Option<u32>> {
    let words = [("None", false), ("ClientIP", true)];
    if !choice(
        "spec.sessionAffinity",
        &spec.session_affinity,
        false,
        &words,
    )? {
        return Ok(None);
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
        .unwrap_or(DEFAULT_AFFINITY);
    match u32::try_from(seconds) {
        Ok(timeout @ 1..) if seconds <= MAX_AFFINITY => Ok(Some(timeout)),
        _ => Err(FieldError::new(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            format!("{seconds} is not a timeout (1-{MAX_AFFINITY} seconds)"),
        )),
    }
}

fn ports(spec: &k8s::ServiceSpec, kind: ServiceType) -> Result<Vec<ServicePort>> {
    let given = list(&spec.ports);
    if given.is_empty() {
        return Err(FieldError::new("spec.ports", "is empty"));
    }
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    let mut node_ports = HashSet::new();
    let mut ports = Vec::new();
    for (i, item) in given.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let port = ServicePort {
            name: port_name(&field("name"), &item.name)?,
            protocol: protocol(&field("protocol"), &item.protocol)?,
            port: port(&field("port"), item.port)?,
            node_port: node_port(&field("nodePort"), item.node_port, kind)?,
        };
        let protocol = port.protocol;
        if port.name.is_empty() && given.len() > 1 {
            return Err(FieldError::new(
                field("name"),
                "is missing: of several ports each needs one",
            ));
        }
        if !names.insert(port.name.clone()) {
            return Err(FieldError::new(
                field("name"),
                format!("{:?} is there already", port.name),
            ));
        }
        if !numbers.insert((protocol, port.port)) {
            return Err(FieldError::new(
                field("port"),
                format!("{}/{protocol} is there already", port.port),
            ));
        }
        if let Some(number) = port.node_port
            && !node_ports.insert((protocol, number))
        {
            return Err(FieldError::new(
                field("nodePort"),
                format!("{number}/{protocol} is there already"),
            ));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn node_port(field: &str, value: Option<i32>, kind: ServiceType) -> Result<Option<u16>> {
    match (kind, optional_port(field, value)?) {
        (ServiceType::NodePort, None) => Err(FieldError::new(
            field,
            "is missing: type NodePort needs it where no API server allocates one",
        )),
        (ServiceType::ClusterIp, Some(_)) => Err(FieldError::new(
            field,
            "type ClusterIP has none (NodePort and LoadBalancer have)",
        )),
        (_, node_port) => Ok(node_port),
    }
}
