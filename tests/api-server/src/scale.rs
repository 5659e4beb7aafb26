//! The subresource `scale`: how many replicas there are and shall be (`autoscaling/v1`), without the rest of the object.

use serde_json::{Value, json};

use super::status::Refusal;

/// The Scale of a Deployment or ReplicaSet.
pub fn of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"].as_u64().unwrap_or(0)},
        "status": {
            "replicas": object["status"]["replicas"].as_u64().unwrap_or(0),
            "selector": selector(&object["spec"]["selector"]["matchLabels"]),
        },
    })
}

/// The object with the replicas that a Scale asks for.
pub fn applied(object: &Value, scale: &Value) -> Result<Value, Refusal> {
    let replicas = &scale["spec"]["replicas"];
    if !replicas.is_null() && replicas.as_u64().is_none() {
        return Err(Refusal::new(
            422,
            format!("Scale: spec.replicas: {replicas} is no number of replicas"),
        ));
    }
    let mut object = object.clone();
    object["spec"]["replicas"] = replicas.as_u64().unwrap_or(0).into();
    // A claim about the version is one about the object.
    object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    Ok(object)
}

/// Labels as the text of a selector.
pub fn selector(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<_> = pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_tells_and_changes_the_replicas_alone() {
        let object = json!({
            "metadata": {"name": "web", "resourceVersion": "7"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web", "tier": "a"}}, "paused": true},
            "status": {"replicas": 1},
        });
        let mut scale = of(&object);
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(
            scale["status"],
            json!({"replicas": 1, "selector": "app=web,tier=a"})
        );
        scale["spec"]["replicas"] = 5.into();
        let scaled = applied(&object, &scale).unwrap();
        assert_eq!(scaled["spec"]["replicas"], 5);
        assert_eq!(scaled["spec"]["paused"], true);
        scale["spec"]["replicas"] = json!(-1);
        assert_eq!(applied(&object, &scale).unwrap_err().code, 422);
    }
}
