//! Patches: JSON merge (RFC 7396), and as much of the strategic merge as Services need.

use serde_json::{Map, Value};

/// The list whose entries a strategic merge finds by a key, and that key.
const PORTS: &str = "ports";
const PORT: &str = "port";

/// Merges `patch` into `target`; `null` removes a field.
pub fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

/// Merges `patch` into `target` as [`merge`] does, but changes single ports, which it finds by their number.
pub fn merge_strategically(target: &mut Value, patch: &Value) {
    json_patch::merge(target, &plain(target, patch));
}

/// The JSON merge patch that does to `target` what this strategic patch asks for.
fn plain(target: &Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else {
        return patch.clone();
    };
    let fields = fields
        .iter()
        .filter(|(name, _)| !name.starts_with('$')) // directives of order mean nothing to a merge by key
        .map(|(name, change)| {
            let change = match (&target[name], change) {
                (Value::Array(ports), Value::Array(changes)) if name == PORTS => {
                    Value::Array(merged_ports(ports, changes))
                }
                (old, change) => plain(old, change),
            };
            (name.clone(), change)
        });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn merged_ports(ports: &[Value], changes: &[Value]) -> Vec<Value> {
    let mut ports = ports.to_vec();
    for change in changes {
        let found = ports.iter().position(|one| one[PORT] == change[PORT]);
        match (found, change["$patch"] == "delete") {
            (Some(index), true) => drop(ports.remove(index)),
            (Some(index), false) => merge_strategically(&mut ports[index], change),
            (None, true) => {}
            (None, false) => ports.push(change.clone()),
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_replaces_lists_and_removes_nulls() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "ports": [{"port": 1}]});
        merge(
            &mut object,
            &json!({"a": {"b": null}, "ports": [{"port": 2}]}),
        );
        assert_eq!(object, json!({"a": {"c": 2}, "ports": [{"port": 2}]}));
    }

    #[test]
    fn a_strategic_merge_finds_ports_by_their_number() {
        let mut object = json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]});
        let patch = json!({"$setElementOrder/ports": [], "ports": [
            {"port": 1, "name": "b"}, {"port": 2, "$patch": "delete"}, {"port": 3}]});
        merge_strategically(&mut object, &patch);
        assert_eq!(
            object,
            json!({"ports": [{"port": 1, "name": "b"}, {"port": 3}]})
        );
    }
}
