//! Patches: JSON merge (RFC 7396), and as much of the strategic merge as Services and Deployments need.

use serde_json::{Map, Value};

/// The lists whose entries a strategic merge finds by a key (`patchMergeKey` in the API's types), and that key.
const KEYS: [(&str, &str); 3] = [
    ("ports", "port"),
    ("ports", "containerPort"),
    ("containers", "name"),
];

/// The key of the entries of the list `name`, as they are in `changes`.
fn key_of(name: &str, changes: &[Value]) -> Option<&'static str> {
    KEYS.iter()
        .find(|(list, key)| *list == name && changes.iter().all(|one| !one[key].is_null()))
        .map(|(_, key)| *key)
}

/// Merges `patch` into `target`; `null` removes a field.
pub fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

/// Merges `patch` into `target` as [`merge`] does, but changes single entries of lists, which it finds by their keys.
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
                (Value::Array(old), Value::Array(changes)) => match key_of(name, changes) {
                    Some(key) => Value::Array(merged(old, changes, key)),
                    None => change.clone(),
                },
                (old, change) => plain(old, change),
            };
            (name.clone(), change)
        });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn merged(old: &[Value], changes: &[Value], key: &str) -> Vec<Value> {
    let mut new = old.to_vec();
    for change in changes {
        let found = new.iter().position(|one| one[key] == change[key]);
        match (found, change["$patch"] == "delete") {
            (Some(index), true) => drop(new.remove(index)),
            (Some(index), false) => merge_strategically(&mut new[index], change),
            (None, true) => {}
            (None, false) => new.push(change.clone()),
        }
    }
    new
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
