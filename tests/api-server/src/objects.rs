//! The objects as controllers in the same process see them: read and written without HTTP, with the checks of a request.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::Shared;
use super::resource::Resource;
use super::status::Refusal;

/// A handle on a server's objects, which may outlive the server.
#[derive(Clone)]
pub struct Objects {
    shared: Arc<Shared>,
}

impl Objects {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The version of the last write.
    pub fn version(&self) -> u64 {
        self.shared.store.version()
    }

    /// All objects of a kind, in the order of their namespaces and names.
    pub fn list(&self, resource: Resource) -> Vec<Value> {
        let all = self.shared.store.snapshot(resource, None);
        let all = all.map(|(_, objects)| objects).unwrap_or_default();
        all.values().map(|object| Value::clone(object)).collect()
    }

    /// The object of this name, if there is one.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        let found = self.shared.store.get(resource, &key).ok()?;
        Some(Value::clone(&found))
    }

    /// Stores a new object, whose metadata name it.
    pub fn create(&self, resource: Resource, object: Value) -> Result<()> {
        let key = key(&object);
        let made = self.shared.store.create(resource, key, object);
        made.map(drop).map_err(refused)
    }

    /// Changes an object; nothing happens where it is gone.
    pub fn change(
        &self,
        resource: Resource,
        object: &Value,
        change: impl FnOnce(&mut Value),
    ) -> Result<()> {
        let changed = self.shared.store.update(resource, key(object), |old| {
            let mut new = old.clone();
            change(&mut new);
            Ok(new)
        });
        unless_gone(changed)
    }

    /// Removes an object at once; nothing happens where it is gone.
    pub fn remove(&self, resource: Resource, object: &Value) -> Result<()> {
        unless_gone(self.shared.store.delete(resource, key(object)))
    }

    /// Marks a Pod for whoever runs it, as a deletion by request does.
    pub fn begin_deletion(&self, resource: Resource, object: &Value) -> Result<()> {
        let begun = self
            .shared
            .store
            .begin_deletion(resource, key(object), None);
        unless_gone(begun)
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| {
        let value = object["metadata"][field].as_str();
        value.unwrap_or_default().to_owned()
    };
    (text("namespace"), text("name"))
}

fn unless_gone<T>(done: Result<T, Refusal>) -> Result<()> {
    match done {
        Err(refusal) if refusal.code != 404 => Err(refused(refusal)),
        _ => Ok(()),
    }
}

fn refused(refusal: Refusal) -> anyhow::Error {
    anyhow!("{}", refusal.message)
}
