//! Lists: pages of one snapshot, which a continue token names by its version and the last key.

use std::ops::Bound;

use serde_json::{Value, json};

use super::query::Query;
use super::resource::Target;
use super::status::Refusal;
use super::store::{Key, Objects, Store};

/// Answers a list request.
pub fn list(
    store: &Store,
    target: &Target,
    query: &Query,
    reversed: bool,
) -> Result<Value, Refusal> {
    let (asked, after) = match query.continue_token() {
        Some(token) => {
            let (version, key) = read_token(token)?;
            (Some(version), Some(key))
        }
        None => (query.exact_version(store.version())?, None),
    };
    let (version, objects) = store.snapshot(target.resource, asked)?;
    let mut fitting =
        rest_of(&objects, after.as_ref()).filter(|(key, object)| query.fits(target, key, object));
    let limit = query.limit.unwrap_or(usize::MAX);
    let mut page: Vec<_> = fitting.by_ref().take(limit).collect();
    let remaining = fitting.count();

    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some((last, _)) = page.last().filter(|_| remaining > 0) {
        metadata["continue"] = format!("{version}/{}/{}", last.0, last.1).into();
        if query.selects_all() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    if reversed {
        page.reverse();
    }
    let items: Vec<_> = page
        .into_iter()
        .map(|(_, object)| object.as_ref())
        .collect();
    Ok(json!({
        "kind": format!("{}List", target.resource.kind()),
        "apiVersion": target.resource.group_version(), "metadata": metadata, "items": items,
    }))
}

fn rest_of<'a>(
    objects: &'a Objects,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a std::sync::Arc<Value>)> {
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
    objects.range((from, Bound::Unbounded))
}

fn read_token(token: &str) -> Result<(u64, Key), Refusal> {
    let read = || {
        let (version, key) = token.split_once('/')?;
        let (namespace, name) = key.split_once('/')?;
        Some((
            version.parse().ok()?,
            (namespace.to_owned(), name.to_owned()),
        ))
    };
    read().ok_or_else(|| Refusal::new(400, format!("continue: cannot read {token:?}")))
}
