//! What the API server adds to objects. To a Service: addresses, node ports and defaults (`pkg/apis/core/v1/defaults.go`,
//! `pkg/registry/core/service`).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::resource::Resource;
use super::status::Refusal;
use super::store::Objects;

/// The default `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;

/// Fills in what is missing. What `old` was given stays.
pub fn fill(
    resource: Resource,
    object: &mut Value,
    old: Option<&Value>,
    others: &Objects,
) -> Result<(), Refusal> {
    if !object.is_object() || !(object["metadata"].is_object() || object["metadata"].is_null()) {
        return Err(Refusal::new(
            400,
            "the object or its metadata is no JSON object",
        ));
    }
    match resource {
        Resource::Services => service(object, old, others),
        Resource::Deployments | Resource::ReplicaSets => {
            let spec = spec_of(object, resource)?;
            default(spec, "replicas", json!(1));
            Ok(())
        }
        Resource::HorizontalPodAutoscalers => {
            let spec = spec_of(object, resource)?;
            default(spec, "minReplicas", json!(1));
            let cpu = json!([{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            default(spec, "metrics", cpu);
            Ok(())
        }
        Resource::Pods => {
            let spec = spec_of(object, resource)?;
            default(spec, "terminationGracePeriodSeconds", json!(30));
            if object["status"].is_null() {
                object["status"] = json!({"phase": "Pending"});
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn spec_of(object: &mut Value, resource: Resource) -> Result<&mut Map<String, Value>, Refusal> {
    let spec = object["spec"].as_object_mut();
    spec.ok_or_else(|| Refusal::new(400, format!("{}: spec is no JSON object", resource.kind())))
}

fn service(object: &mut Value, old: Option<&Value>, others: &Objects) -> Result<(), Refusal> {
    if object["spec"].is_null() {
        object["spec"] = json!({});
    }
    let Some(spec) = object["spec"].as_object_mut() else {
        return Err(Refusal::new(400, "Service: spec is no JSON object"));
    };
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        default(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10800}}),
        );
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    default(spec, "internalTrafficPolicy", json!("Cluster"));
    addresses(spec, old, others);
    let outside = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if outside {
        default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    let allocate = outside && spec.get("allocateLoadBalancerNodePorts") != Some(&json!(false));
    ports(spec, allocate, others)?;
    if kind == "LoadBalancer"
        && spec["externalTrafficPolicy"] == "Local"
        && !spec.contains_key("healthCheckNodePort")
    {
        spec.insert(
            "healthCheckNodePort".into(),
            free_port(&used_ports(spec, others))?.into(),
        );
    }
    default_status(object);
    Ok(())
}

fn default_status(object: &mut Value) {
    if object["status"].is_null() {
        object["status"] = json!({"loadBalancer": {}});
    }
}

fn default(spec: &mut Map<String, Value>, field: &str, value: Value) {
    let field = spec.entry(field).or_insert(Value::Null);
    if field.is_null() || *field == "" {
        *field = value;
    }
}

fn addresses(spec: &mut Map<String, Value>, old: Option<&Value>, others: &Objects) {
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(given) = old
            .map(|old| &old["spec"][field])
            .filter(|one| !one.is_null())
        {
            default(spec, field, given.clone());
        }
    }
    default(spec, "ipFamilyPolicy", json!("SingleStack"));
    let first = spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let v6_first = first.contains(':');
    let mut families = vec![if v6_first { "IPv6" } else { "IPv4" }];
    if spec["ipFamilyPolicy"] != "SingleStack" {
        families.push(if v6_first { "IPv4" } else { "IPv6" });
    }
    default(spec, "ipFamilies", json!(families));
    if first == "None" {
        default(spec, "clusterIPs", json!(["None"]));
        return;
    }
    let mut all: Vec<String> = spec
        .get("clusterIPs")
        .and_then(Value::as_array)
        .map(|all| {
            all.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    if all.is_empty() && !first.is_empty() {
        all.push(first);
    }
    let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    if all.len() < families.len() {
        allocate_addresses(&mut all, &families, others);
    }
    spec.insert("clusterIP".into(), json!(all.first()));
    spec.insert("clusterIPs".into(), json!(all));
}

fn allocate_addresses(all: &mut Vec<String>, families: &[Value], others: &Objects) {
    let used: BTreeSet<_> = others
        .values()
        .flat_map(|one| one["spec"]["clusterIPs"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    for family in families.iter().skip(all.len()) {
        let free = (1_u16..u16::MAX)
            .map(|number| address(family == "IPv6", number))
            .find(|one| !used.contains(one.as_str()));
        all.extend(free);
    }
}

/// Out of 10.96.0.0/16 and fd00:10:96::/112.
fn address(v6: bool, number: u16) -> String {
    if v6 {
        Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number).to_string()
    } else {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 96, high, low).to_string()
    }
}

fn ports(spec: &mut Map<String, Value>, allocate: bool, others: &Objects) -> Result<(), Refusal> {
    let lacks = |port: &Value| port["nodePort"].as_u64().unwrap_or(0) == 0;
    let given = spec.get("ports").and_then(Value::as_array);
    let mut used = if allocate && given.is_some_and(|ports| ports.iter().any(lacks)) {
        used_ports(spec, others)
    } else {
        BTreeSet::new()
    };
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let Some(port) = port.as_object_mut() else {
            return Err(Refusal::new(
                400,
                "Service: an element of spec.ports is no JSON object",
            ));
        };
        let number = port
            .get("port")
            .and_then(Value::as_u64)
            .filter(|one| (1..=65535).contains(one));
        let Some(number) = number else {
            return Err(Refusal::new(
                422,
                "Service: spec.ports[].port is not between 1 and 65535",
            ));
        };
        default(port, "protocol", json!("TCP"));
        default(port, "targetPort", json!(number));
        if allocate && port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0 {
            let free = free_port(&used)?;
            used.insert(free);
            port.insert("nodePort".into(), free.into());
        }
    }
    Ok(())
}

fn used_ports(spec: &Map<String, Value>, others: &Objects) -> BTreeSet<u64> {
    let own = spec.get("ports").into_iter();
    own.chain(others.values().map(|one| &one["spec"]["ports"]))
        .flat_map(|ports| ports.as_array().into_iter().flatten())
        .filter_map(|port| port["nodePort"].as_u64())
        .chain(
            others
                .values()
                .filter_map(|one| one["spec"]["healthCheckNodePort"].as_u64()),
        )
        .collect()
}

fn free_port(used: &BTreeSet<u64>) -> Result<u64, Refusal> {
    NODE_PORTS
        .into_iter()
        .find(|port| !used.contains(port))
        .ok_or_else(|| Refusal::new(500, "Service: no node port is free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_gets_what_it_did_not_say() {
        let mut service = json!({"spec": {"type": "NodePort", "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"port": 80}, {"port": 81, "nodePort": 30000}]}});
        fill(Resource::Services, &mut service, None, &Objects::new()).unwrap();
        let spec = &service["spec"];
        assert_eq!(spec["clusterIPs"], json!(["10.96.0.1", "fd00:10:96::1"]));
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(
            spec["ports"][0],
            json!({"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30001})
        );
        assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn an_update_keeps_its_address_and_a_headless_one_gets_none() {
        let old = json!({"spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]}});
        let mut new = json!({"spec": {"ports": []}});
        fill(Resource::Services, &mut new, Some(&old), &Objects::new()).unwrap();
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
        let mut headless = json!({"spec": {"clusterIP": "None"}});
        fill(Resource::Services, &mut headless, None, &Objects::new()).unwrap();
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn a_port_without_a_number_is_invalid() {
        let mut service = json!({"spec": {"ports": [{"name": "http"}]}});
        let refused = fill(Resource::Services, &mut service, None, &Objects::new());
        assert_eq!(refused.unwrap_err().code, 422);
    }
}
