//! The EndpointSlices of Services with a selector (`pkg/controller/endpointslice`): one for each family.

use anyhow::Result;
use api_server::objects::Objects;
use api_server::resource::Resource;
use api_server::table::is_ready;
use serde_json::{Value, json};

use super::object;

const SERVICE: &str = "kubernetes.io/service-name";
const CONTROLLER: &str = "endpointslice.kubernetes.io/managed-by";
const NAME: &str = "endpointslice-controller.k8s.io";

pub fn reconcile(objects: &Objects) -> Result<()> {
    let pods = objects.list(Resource::Pods);
    for service in objects.list(Resource::Services) {
        let selector = &service["spec"]["selector"];
        if selector.as_object().is_none_or(|labels| labels.is_empty()) {
            continue;
        }
        let chosen: Vec<_> = pods
            .iter()
            .filter(|pod| {
                object::namespace(pod) == object::namespace(&service)
                    && object::has_labels(pod, selector)
            })
            .collect();
        for family in service["spec"]["ipFamilies"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let wanted = slice(&service, family.as_str().unwrap_or_default(), &chosen);
            let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
            match objects.get(Resource::EndpointSlices, namespace, name) {
                None => objects.create(Resource::EndpointSlices, wanted)?,
                Some(old) => objects.change(Resource::EndpointSlices, &old, |slice| {
                    slice["endpoints"] = wanted["endpoints"].clone();
                    slice["ports"] = wanted["ports"].clone();
                })?,
            }
        }
    }
    Ok(())
}

fn slice(service: &Value, family: &str, pods: &[&Value]) -> Value {
    let name = object::name(service);
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let ports: Vec<_> = ports
        .map(|port| {
            json!({"name": port["name"].as_str().unwrap_or_default(), "protocol": port["protocol"],
                "port": target(port, pods)})
        })
        .collect();
    let endpoints: Vec<_> = pods
        .iter()
        .filter_map(|pod| endpoint(pod, family == "IPv6"))
        .collect();
    json!({
        "addressType": family, "ports": ports, "endpoints": endpoints,
        "metadata": {
            "name": format!("{name}-{}", family.to_lowercase()), "namespace": service["metadata"]["namespace"],
            "labels": {SERVICE: name, CONTROLLER: NAME}, "ownerReferences": object::owned_by(service),
        },
    })
}

/// The number of a port, or the one that the pods' containers give that name.
fn target(port: &Value, pods: &[&Value]) -> Value {
    let Some(name) = port["targetPort"].as_str() else {
        return port["targetPort"].clone();
    };
    let containers = pods
        .iter()
        .flat_map(|pod| pod["spec"]["containers"].as_array());
    containers
        .flatten()
        .flat_map(|container| container["ports"].as_array())
        .flatten()
        .find(|one| one["name"] == name)
        .map_or(Value::Null, |one| one["containerPort"].clone())
}

/// A pod that has an address, in the family that is asked for.
fn endpoint(pod: &Value, v6: bool) -> Option<Value> {
    let addresses = pod["status"]["podIPs"].as_array()?;
    let address = addresses
        .iter()
        .filter_map(|one| one["ip"].as_str())
        .find(|ip| ip.contains(':') == v6)?;
    let (serving, terminating) = (is_ready(pod), object::is_deleted(pod));
    Some(json!({
        "addresses": [address], "nodeName": pod["spec"]["nodeName"],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": object::name(pod), "namespace": object::namespace(pod)},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_ends_serves_and_is_not_ready() {
        let mut pod = json!({
            "metadata": {"name": "a"}, "spec": {"nodeName": "n"},
            "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let ready = endpoint(&pod, true).unwrap();
        assert_eq!(ready["addresses"], json!(["fd00::1"]));
        assert_eq!(ready["conditions"]["ready"], true);
        pod["metadata"]["deletionTimestamp"] = "now".into();
        let conditions = &endpoint(&pod, false).unwrap()["conditions"];
        assert_eq!(
            *conditions,
            json!({"ready": false, "serving": true, "terminating": true})
        );
    }
}
