//! As much of OpenAPI v3 as `kubectl apply` asks for: that the server itself checks fields, so that the client need not. No
//! schema is served.

use serde_json::{Value, json};

use super::discovery;
use super::resource::{Resource, root};

const ROOT: &str = "/openapi/v3";

/// The document at a path, if it is one of OpenAPI.
pub fn document(path: &str) -> Option<Value> {
    if path == ROOT {
        let groups = discovery::group_versions().into_iter().map(root);
        let paths: serde_json::Map<_, _> = groups
            .map(|group| {
                let url = json!({"serverRelativeURL": format!("{ROOT}/{group}")});
                (group, url)
            })
            .collect();
        return Some(json!({"paths": paths}));
    }
    let asked = path.strip_prefix(ROOT)?.strip_prefix('/')?;
    let mut paths = serde_json::Map::new();
    for resource in Resource::ALL {
        if root(resource.group_version()) == asked {
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

/// The operation that changes an object.
fn patch(resource: Resource) -> Value {
    let group = resource.group();
    let version = resource.group_version().rsplit('/').next();
    json!({
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": resource.kind()},
    })
}
