//! Node.

use super::{Result, address, label, list, names, objects as k8s, own_name};
use crate::model::Node;

/// By this the cluster autoscaler says that it takes the node away.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Its addresses come in the order of preference: internal before external ones.
pub fn node(object: &k8s::Node) -> Result<Node> {
    let given = object
        .status
        .as_ref()
        .map(|status| list(&status.addresses))
        .unwrap_or_default();
    let mut addresses = Vec::new();
    for wanted in ["InternalIP", "ExternalIP"] {
        for (i, item) in given.iter().enumerate() {
            if item.type_ == wanted {
                let field = format!("status.addresses[{i}].address");
                addresses.push(address(&field, &item.address)?);
            }
        }
    }
    Ok(Node {
        name: own_name(&object.metadata, names::subdomain)?.to_owned(),
        zone: label(&object.metadata, ZONE_LABEL)
            .filter(|zone| !zone.is_empty())
            .map(str::to_owned),
        addresses,
        leaving: is_leaving(object),
    })
}

fn is_leaving(object: &k8s::Node) -> bool {
    let taints = object.spec.as_ref().map(|spec| list(&spec.taints));
    object.metadata.deletion_timestamp.is_some()
        || taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == TO_BE_DELETED_TAINT)
}
