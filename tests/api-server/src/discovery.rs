//! The documents by which clients find what is served.

use serde_json::{Value, json};

use super::resource::Resource;

/// The document at a path, if it is one of discovery.
pub fn document(path: &str) -> Option<Value> {
    let version = json!({"groupVersion": "discovery.k8s.io/v1", "version": "v1"});
    let group =
        json!({"name": "discovery.k8s.io", "versions": [version], "preferredVersion": version});
    Some(match path.trim_end_matches('/') {
        "/version" => {
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"})
        }
        "/api" => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        }
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}),
        "/api/v1" => resources("v1"),
        "/apis/discovery.k8s.io/v1" => resources("discovery.k8s.io/v1"),
        _ => return None,
    })
}

fn resources(group_version: &str) -> Value {
    let all: Vec<_> = Resource::ALL
        .into_iter()
        .filter(|one| one.group_version() == group_version)
        .map(|one| {
            let short = match one {
                Resource::Services => json!(["svc"]),
                Resource::Nodes => json!(["no"]),
                Resource::Namespaces => json!(["ns"]),
                Resource::Events => json!(["ev"]),
                Resource::EndpointSlices => json!([]),
            };
            json!({
                "name": one.plural(), "singularName": one.kind().to_lowercase(), "kind": one.kind(),
                "namespaced": one.namespaced(), "shortNames": short,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all})
}
