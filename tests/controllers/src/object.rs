//! What controllers ask of objects.

use serde_json::{Value, json};

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub fn is_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Does this controller own it?
pub fn is_owned(object: &Value, owner: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let uid = uid(owner);
    owners.is_some_and(|all| all.iter().any(|one| one["uid"] == uid))
}

/// The reference that makes `owner` the controller of what has it.
pub fn owned_by(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Does it have all of these labels?
pub fn has_labels(object: &Value, labels: &Value) -> bool {
    let wanted = labels.as_object().into_iter().flatten();
    let mut pairs = wanted.peekable();
    pairs.peek().is_some() && pairs.all(|(key, value)| object["metadata"]["labels"][key] == *value)
}
