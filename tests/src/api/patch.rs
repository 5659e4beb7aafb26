//! Patches: RFC 7396, and as much of the strategic merge as Services need.

use serde_json::{Map, Value};

/// Merges `patch` into `target`; `null` removes. A strategic one merges ports by their number.
pub fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (field, value) in patch {
        if strategic && field.starts_with('$') {
            continue; // directives of order, which mean nothing to a merge by key
        }
        if value.is_null() {
            target.as_object_mut().map(|fields| fields.remove(field));
        } else if strategic && field == "ports" && target[field].is_array() {
            merge_ports(&mut target[field], value);
        } else {
            merge(&mut target[field.as_str()], value, strategic);
        }
    }
}

/// The merge key of `ServiceSpec.ports` is `port`.
fn merge_ports(target: &mut Value, patch: &Value) {
    let Some(ports) = target.as_array_mut() else {
        return;
    };
    for change in patch.as_array().into_iter().flatten() {
        let found = ports.iter().position(|one| one["port"] == change["port"]);
        match (found, change["$patch"] == "delete") {
            (Some(index), true) => drop(ports.remove(index)),
            (Some(index), false) => merge(&mut ports[index], change, true),
            (None, true) => {}
            (None, false) => ports.push(change.clone()),
        }
    }
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
            false,
        );
        assert_eq!(object, json!({"a": {"c": 2}, "ports": [{"port": 2}]}));
    }

    #[test]
    fn a_strategic_merge_finds_ports_by_their_number() {
        let mut object = json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]});
        let patch = json!({"$setElementOrder/ports": [], "ports": [
            {"port": 1, "name": "b"}, {"port": 2, "$patch": "delete"}, {"port": 3}]});
        merge(&mut object, &patch, true);
        assert_eq!(
            object,
            json!({"ports": [{"port": 1, "name": "b"}, {"port": 3}]})
        );
    }
}
