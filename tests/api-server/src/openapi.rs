//! As much of OpenAPI v3 as `kubectl apply` asks for: that the server itself checks fields, so that the client need not. No
//! schema is served.

use serde_json::{Value, json};

use super::resource::Resource;

const ROOT: &str = "/openapi/v3";

/// The document at a path, if it is one of OpenAPI.
pub fn document(path: &str) -> Option<Value> {
    if path == ROOT {
        let groups = [Resource::Services, Resource::EndpointSlices].map(group);
        let paths: serde_json::Map<_, _> = groups
            .into_iter()
            .map(|group| {
                let url = json!({"serverRelativeURL": format!("{ROOT}/{group}")});
                (group.to_owned(), url)
            })
            .collect();
        return Some(json!({"paths": paths}));
    }
    let asked = path.strip_prefix(ROOT)?.strip_prefix('/')?;
    let mut paths = serde_json::Map::new();
    for resource in Resource::ALL {
        if group(resource) == asked {
            let path = format!("{}/{{name}}", resource.path("{namespace}"));
            paths.insert(path, json!({"patch": patch(resource)}));
        }
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.34.0"},
            "paths": paths,
        })
    })
}

fn group(resource: Resource) -> &'static str {
    match resource.group_version() {
        "v1" => "api/v1",
        _ => "apis/discovery.k8s.io/v1",
    }
}

/// The operation that changes an object.
fn patch(resource: Resource) -> Value {
    let (group, version) = resource
        .group_version()
        .rsplit_once('/')
        .unwrap_or(("", "v1"));
    json!({
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": resource.kind()},
    })
}
