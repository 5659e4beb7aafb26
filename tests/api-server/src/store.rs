//! The objects, one rising version over all kinds, and the history that watches and pages are answered from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::defaults;
use super::object::Object;
use super::resource::Resource;
use super::status::Refusal;

/// Namespace (empty where there is none) and name: the order of lists, as etcd's.
pub type Key = (String, String);
pub type Objects = BTreeMap<Key, Arc<Object>>;

/// One write: `old` is nothing for a creation, `new` is nothing for a deletion.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub resource: Resource,
    pub key: Key,
    pub old: Option<Arc<Object>>,
    /// For a deletion `deleted` has the last state with the deletion's version.
    pub new: Option<Arc<Object>>,
    pub deleted: Option<Arc<Object>>,
}

pub struct Store {
    inner: Mutex<Inner>,
    /// The last version, for those who wait for a newer one.
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    /// Versions up to this one can be neither watched from nor paged through.
    compacted: u64,
    /// Shared with the lists that are being read.
    objects: BTreeMap<Resource, Arc<Objects>>,
    history: VecDeque<Change>,
}

impl Store {
    /// A store with the namespaces of a new cluster.
    pub fn new() -> Self {
        let store = Self {
            inner: Mutex::default(),
            last: watch::Sender::new(0),
        };
        for name in ["default", "kube-system"] {
            let namespace = json!({"metadata": {"name": name}, "status": {"phase": "Active"}});
            let key = (String::new(), name.to_owned());
            let made = store.create(Resource::Namespaces, key, namespace);
            made.expect("a new store has no object of this name");
        }
        store
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    pub fn version(&self) -> u64 {
        self.lock().version
    }

    pub fn get(&self, resource: Resource, key: &Key) -> Result<Arc<Object>, Refusal> {
        let inner = self.lock();
        let found = inner.objects.get(&resource).and_then(|all| all.get(key));
        found.cloned().ok_or_else(|| not_found(resource, key))
    }

    /// All objects of a kind as they were at `version`, which is now if none is given.
    pub fn snapshot(
        &self,
        resource: Resource,
        version: Option<u64>,
    ) -> Result<(u64, Arc<Objects>), Refusal> {
        let inner = self.lock();
        let mut objects = inner.objects.get(&resource).cloned().unwrap_or_default();
        let version = version.unwrap_or(inner.version);
        inner.check_reach(version)?;
        for change in inner
            .history
            .iter()
            .rev()
            .take_while(|one| one.version > version)
        {
            if change.resource == resource {
                let objects = Arc::make_mut(&mut objects);
                match &change.old {
                    Some(old) => objects.insert(change.key.clone(), Arc::clone(old)),
                    None => objects.remove(&change.key),
                };
            }
        }
        Ok((version, objects))
    }

    /// The changes of a kind after `version`, and the version that they lead to.
    pub fn changes(&self, resource: Resource, version: u64) -> Result<(u64, Vec<Change>), Refusal> {
        let inner = self.lock();
        inner.check_reach(version)?;
        let from = inner.history.partition_point(|one| one.version <= version);
        let changes = inner
            .history
            .range(from..)
            .filter(|one| one.resource == resource);
        Ok((inner.version, changes.cloned().collect()))
    }

    pub fn create(
        &self,
        resource: Resource,
        key: Key,
        mut object: Value,
    ) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.lock();
        let all = inner.objects.entry(resource).or_default();
        if all.contains_key(&key) {
            return Err(Refusal::new(
                409,
                format!("{} {:?} already exists", resource.plural(), key.1),
            ));
        }
        defaults::fill(resource, &mut object, None, all)?;
        let number = inner.version + 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("00000000-0000-4000-8000-{number:012x}").into();
        metadata["creationTimestamp"] = now().into();
        metadata["generation"] = 1.into();
        Ok(self.write(&mut inner, resource, key, object))
    }

    /// Replaces an object by what `change` makes of it. A resourceVersion in the result has to be the present one.
    pub fn update(
        &self,
        resource: Resource,
        key: Key,
        change: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.lock();
        let all = inner.objects.entry(resource).or_default();
        let old = all
            .get(&key)
            .cloned()
            .ok_or_else(|| not_found(resource, &key))?;
        let mut object = change(&old)?;
        let claimed = object["metadata"]["resourceVersion"].as_str();
        if claimed.is_some_and(|one| {
            !one.is_empty() && Some(one) != old["metadata"]["resourceVersion"].as_str()
        }) {
            return Err(Refusal::new(
                409,
                format!(
                    "{} {:?}: the object has been modified; please apply your changes to the latest version",
                    resource.plural(),
                    key.1,
                ),
            ));
        }
        defaults::fill(resource, &mut object, Some(&old), all)?;
        for field in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
        ] {
            if !old["metadata"][field].is_null() {
                object["metadata"][field] = old["metadata"][field].clone();
            }
        }
        if object == **old {
            // As in a real one, a write that changes nothing makes no event.
            return Ok(old);
        }
        if object["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
            object["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(self.write(&mut inner, resource, key, object))
    }

    /// Marks an object that somebody has to end before it goes: `grace` seconds from now, or what its spec says.
    pub fn begin_deletion(
        &self,
        resource: Resource,
        key: Key,
        grace: Option<u64>,
    ) -> Result<Arc<Object>, Refusal> {
        self.update(resource, key, |old| {
            let mut new = old.clone();
            let metadata = &mut new["metadata"];
            if metadata["deletionTimestamp"].is_null() {
                let given = old["spec"]["terminationGracePeriodSeconds"].as_u64();
                metadata["deletionTimestamp"] = now().into();
                metadata["deletionGracePeriodSeconds"] = grace.or(given).unwrap_or(30).into();
            }
            Ok(new)
        })
    }

    pub fn delete(&self, resource: Resource, key: Key) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.lock();
        let all = inner.objects.entry(resource).or_default();
        let old = Arc::make_mut(all)
            .remove(&key)
            .ok_or_else(|| not_found(resource, &key))?;
        inner.version += 1;
        let version = inner.version;
        let mut last = Value::clone(&old);
        last["metadata"]["resourceVersion"] = version.to_string().into();
        let last = Arc::new(Object::new(last));
        inner.history.push_back(Change {
            version,
            resource,
            key,
            old: Some(old),
            new: None,
            deleted: Some(Arc::clone(&last)),
        });
        self.last.send_replace(version);
        Ok(last)
    }

    /// Stores an object without a look at it.
    pub fn put_unchecked(&self, resource: Resource, key: Key, object: Value) {
        self.write(&mut self.lock(), resource, key, object);
    }

    /// Forgets the history. The version rises, so that no watcher is at the last one.
    pub fn compact(&self) {
        let mut inner = self.lock();
        inner.version += 1;
        inner.compacted = inner.version;
        inner.history.clear();
        self.last.send_replace(inner.version);
    }

    fn write(
        &self,
        inner: &mut Inner,
        resource: Resource,
        key: Key,
        mut object: Value,
    ) -> Arc<Object> {
        inner.version += 1;
        let version = inner.version;
        object["kind"] = resource.kind().into();
        object["apiVersion"] = resource.group_version().into();
        object["metadata"]["name"] = key.1.clone().into();
        if resource.namespaced() {
            object["metadata"]["namespace"] = key.0.clone().into();
        }
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let new = Arc::new(Object::new(object));
        let all = inner.objects.entry(resource).or_default();
        let old = Arc::make_mut(all).insert(key.clone(), Arc::clone(&new));
        inner.history.push_back(Change {
            version,
            resource,
            key,
            old,
            new: Some(Arc::clone(&new)),
            deleted: None,
        });
        self.last.send_replace(version);
        new
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nobody panics while holding the store")
    }
}

impl Inner {
    fn check_reach(&self, version: u64) -> Result<(), Refusal> {
        if version < self.compacted {
            return Err(Refusal::expired(version, self.compacted));
        }
        Ok(())
    }
}

fn not_found(resource: Resource, key: &Key) -> Refusal {
    Refusal::new(404, format!("{} {:?} not found", resource.plural(), key.1))
}

/// RFC 3339 with whole seconds, as `metav1.Time` is written.
fn now() -> String {
    let seconds = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|error| error.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (String::new(), name.to_owned())
    }

    #[test]
    fn a_snapshot_is_of_its_version_until_the_history_is_compacted() {
        let store = Store::new();
        store.create(Resource::Nodes, key("a"), json!({})).unwrap();
        let then = store.version();
        store.delete(Resource::Nodes, key("a")).unwrap();
        store.create(Resource::Nodes, key("b"), json!({})).unwrap();
        let names = |version| {
            let (_, objects) = store.snapshot(Resource::Nodes, version)?;
            Ok::<_, Refusal>(objects.keys().map(|key| key.1.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(Some(then)).unwrap(), ["a"]);
        assert_eq!(names(None).unwrap(), ["b"]);
        store.compact();
        assert_eq!(names(Some(then)).unwrap_err().code, 410);
        assert_eq!(store.changes(Resource::Nodes, then).unwrap_err().code, 410);
    }

    #[test]
    fn an_update_of_an_old_version_conflicts_and_an_empty_one_is_no_change() {
        let store = Store::new();
        let first = store
            .create(Resource::Nodes, key("a"), json!({"spec": {}}))
            .unwrap();
        let same = store
            .update(Resource::Nodes, key("a"), |old| Ok(old.clone()))
            .unwrap();
        assert_eq!(first, same);
        let change = |old: &Value| {
            let mut new = old.clone();
            new["spec"]["unschedulable"] = true.into();
            Ok(new)
        };
        let second = store.update(Resource::Nodes, key("a"), change).unwrap();
        assert_eq!(second["metadata"]["generation"], 2);
        let stale = store.update(Resource::Nodes, key("a"), |_| Ok(Value::clone(&first)));
        assert_eq!(stale.unwrap_err().code, 409);
    }
}
