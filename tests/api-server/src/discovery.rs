//! The documents by which clients find what is served.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::resource::{Resource, Subresource, root};

/// The document at a path, if it is one of discovery.
pub fn document(path: &str) -> Option<Value> {
    let path = path.trim_end_matches('/');
    Some(match path {
        "/version" => {
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"})
        }
        "/api" => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        }
        "/apis" => {
            let groups: Vec<_> = group_versions()
                .into_iter()
                .filter_map(|one| one.split_once('/'))
                .map(|(group, version)| api_group(group, version))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        path => {
            let served = group_versions();
            let asked = served
                .into_iter()
                .find(|one| path.strip_prefix('/') == Some(&root(one)))?;
            resources(asked)
        }
    })
}

/// Every group's version, in the order in which clients look for a kind.
pub fn group_versions() -> Vec<&'static str> {
    let mut seen = BTreeSet::new();
    Resource::ALL
        .into_iter()
        .map(Resource::group_version)
        .filter(|one| seen.insert(*one))
        .collect()
}

/// A group with its one version, as `/apis` lists it.
fn api_group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn resources(group_version: &str) -> Value {
    let all: Vec<_> = Resource::ALL
        .into_iter()
        .filter(|one| one.group_version() == group_version)
        .flat_map(|one| {
            let whole = json!({
                "name": one.plural(), "singularName": one.kind().to_lowercase(), "kind": one.kind(),
                "namespaced": one.namespaced(), "shortNames": one.short_names(),
                "categories": one.categories(),
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            });
            let parts = one
                .subresources()
                .iter()
                .map(move |part| part_of(one, *part));
            std::iter::once(whole).chain(parts)
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all})
}

fn part_of(resource: Resource, part: Subresource) -> Value {
    let mut described = json!({
        "name": format!("{}/{}", resource.plural(), part.name()), "singularName": "",
        "kind": resource.kind(), "namespaced": resource.namespaced(),
        "verbs": ["get", "patch", "update"],
    });
    if part == Subresource::Scale {
        described["kind"] = "Scale".into();
        described["group"] = "autoscaling".into();
        described["version"] = "v1".into();
    }
    described
}
