//! Lists: pages of one snapshot, which a continue token names by its version and the last key.

use std::ops::Bound;
use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::json;

use super::object::Object;
use super::query::Query;
use super::resource::Target;
use super::status::Refusal;
use super::store::{Key, Objects, Store};
use super::table;

/// Answers a list request, in JSON, as a List or a Table.
pub fn list(
    store: &Store,
    target: &Target,
    query: &Query,
    reversed: bool,
    as_table: bool,
) -> Result<Bytes, Refusal> {
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
    let more = fitting.next().is_some();

    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some((last, _)) = page.last().filter(|_| more) {
        metadata["continue"] = format!("{version}/{}/{}", last.0, last.1).into();
        if query.selects_all() {
            metadata["remainingItemCount"] = (1 + fitting.count()).into();
        }
    }
    if reversed {
        page.reverse();
    }
    if as_table {
        let objects = page.iter().map(|(_, object)| &****object);
        return Ok(table::of(target.resource, objects, &metadata)
            .to_string()
            .into());
    }
    let head = json!({
        "kind": format!("{}List", target.resource.kind()),
        "apiVersion": target.resource.group_version(), "metadata": metadata,
    });
    Ok(with_items(&head.to_string(), &page).into())
}

/// The JSON object `head` with one field more. The texts of the items are at hand.
fn with_items(head: &str, items: &[(&Key, &Arc<Object>)]) -> Vec<u8> {
    let open = head.strip_suffix('}').unwrap_or(head);
    let size: usize = items.iter().map(|(_, one)| one.text().len() + 1).sum();
    let mut text = Vec::with_capacity(open.len() + size + 16);
    text.extend_from_slice(open.as_bytes());
    text.extend_from_slice(b",\"items\":[");
    for (number, (_, object)) in items.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        text.extend_from_slice(object.text());
    }
    text.extend_from_slice(b"]}");
    text
}

fn rest_of<'a>(
    objects: &'a Objects,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
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
