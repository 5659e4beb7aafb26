//! The objects of all files, and what differs from before.
//!
//! Only files that changed are read and parsed. What a file said last is kept for as long as it is there and does not say
//! anything else that can be understood. Of two manifests for one object, the first counts (by path, then by place in the
//! file), and the other is a problem.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    manifest::{self, Contents, Key, Manifest, Object, ObjectKind},
    open::{Found, Reader, Stamp},
    tree::Tree,
};
use crate::{
    model::{Event, Node, ObjectName},
    source::{Batch, convert::is_service_name},
};

#[derive(Debug)]
pub struct Directory {
    own_node: String,
    files: BTreeMap<PathBuf, File>,
    hasher: RandomState,
    reader: Reader,
    /// What the batches so far amount to.
    sent: BTreeMap<Key, Arc<Object>>,
    problems: BTreeSet<String>,
    notes: BTreeSet<String>,
}

/// The outcome of one reading.
#[derive(Debug)]
pub struct Reading {
    pub batch: Batch,
    /// Those that the reading before did not have.
    pub new_problems: Vec<String>,
    pub new_notes: Vec<String>,
    /// Services whose objects are wrong, each with what is.
    pub refused: BTreeMap<ObjectName, String>,
    /// Some file did not answer: it should be looked at again.
    pub is_waiting: bool,
}

#[derive(Default, Debug)]
struct File {
    /// What it was when it was read; `None` if it has to be read again in any case.
    stamp: Option<Stamp>,
    /// Of its bytes, which are taken apart once. `None` where they could not be.
    hash: Option<u64>,
    manifests: Vec<Kept>,
    invalid: Vec<(Key, String)>,
    problems: Vec<String>,
    notes: Vec<String>,
}

/// A manifest, its object shared with what was sent.
#[derive(Clone, Debug)]
struct Kept {
    position: manifest::Position,
    key: Key,
    object: Option<Arc<Object>>,
}

/// File times are coarse: two writes may leave the same. A file is known by its stamp only once it is older than this.
const SETTLED: Duration = Duration::from_secs(1);

impl Directory {
    /// Files of more than `max_bytes` are not read.
    pub fn new(own_node: String, max_bytes: u64) -> Self {
        Self {
            own_node,
            files: BTreeMap::new(),
            hasher: RandomState::new(),
            reader: Reader::new(max_bytes),
            sent: BTreeMap::new(),
            problems: BTreeSet::new(),
            notes: BTreeSet::new(),
        }
    }

    /// The next reading takes no file for known, and tells all problems.
    pub fn forget(&mut self) {
        for file in self.files.values_mut() {
            (file.stamp, file.hash) = (None, None);
        }
        self.problems.clear();
        self.notes.clear();
    }

    pub fn read(&mut self, tree: &Tree) -> Reading {
        self.files.retain(|name, _| tree.files.contains_key(name));
        self.reader.begin();
        for (name, path) in &tree.files {
            let file = self.files.entry(name.clone()).or_default();
            file.read(name, path, &mut self.reader, &self.own_node, &self.hasher);
        }

        let (objects, duplicates) = self.merge();
        let problems: BTreeSet<String> = self
            .files
            .values()
            .flat_map(|file| &file.problems)
            .cloned()
            .chain(duplicates)
            .collect();
        let new_problems = problems.difference(&self.problems).cloned().collect();
        self.problems = problems;
        let notes = self.files.values().flat_map(|file| &file.notes);
        let notes: BTreeSet<String> = notes.cloned().collect();
        let new_notes = notes.difference(&self.notes).cloned().collect();
        self.notes = notes;

        let batch = difference(&self.sent, &objects, &self.own_node);
        self.sent = objects;
        Reading {
            batch,
            new_problems,
            new_notes,
            refused: self.refused(),
            is_waiting: self.reader.waits(),
        }
    }

    fn refused(&self) -> BTreeMap<ObjectName, String> {
        let all = self.files.values().flat_map(|file| &file.invalid);
        // What has a name that no Service may have is told by its file alone.
        let services = all.filter(|(key, _)| {
            let names = [&key.name.namespace, &key.name.name];
            key.kind == ObjectKind::Service && names.into_iter().all(|one| is_service_name(one))
        });
        services
            .map(|(key, problem)| (key.name.clone(), problem.clone()))
            .collect()
    }

    /// One object for each key, and what there is to say about the others.
    fn merge(&self) -> (BTreeMap<Key, Arc<Object>>, Vec<String>) {
        let mut first: BTreeMap<&Key, &Kept> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for manifest in self.files.values().flat_map(|file| &file.manifests) {
            match first.entry(&manifest.key) {
                Entry::Vacant(entry) => {
                    entry.insert(manifest);
                }
                Entry::Occupied(entry) => duplicates.push(format!(
                    "{} {}: not used, {} has the same object and comes first",
                    manifest.position,
                    manifest.key,
                    entry.get().position
                )),
            }
        }
        let objects = first
            .into_values()
            .filter_map(|kept| Some((kept.key.clone(), kept.object.clone()?)))
            .collect();
        (objects, duplicates)
    }
}

impl File {
    fn read(
        &mut self,
        name: &Path,
        path: &Path,
        reader: &mut Reader,
        own_node: &str,
        hasher: &RandomState,
    ) {
        match self.changed_bytes(path, reader) {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                let hash = Some(hasher.hash_one(&bytes));
                if self.hash != hash {
                    self.hash = hash;
                    self.replace(manifest::parse(name, &bytes, own_node));
                }
            }
            Err(error) => {
                (self.stamp, self.hash) = (None, None);
                let problem = format!("{}: {error}", name.display());
                self.problems = vec![format!("{problem}{}", self.what_is_kept())];
                self.notes.clear();
            }
        }
    }

    /// The bytes, unless they are those of last time.
    fn changed_bytes(&mut self, path: &Path, reader: &mut Reader) -> io::Result<Option<Vec<u8>>> {
        let now = SystemTime::now();
        let settled = |seconds: i64| {
            u64::try_from(seconds)
                .is_ok_and(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s + 1) + SETTLED < now)
        };
        match reader.read(path, self.stamp.as_ref())? {
            Found::Same => Ok(None),
            Found::Bytes(stamp, bytes) => {
                let is_settled = settled(stamp.modified.0) && settled(stamp.changed.0);
                self.stamp = is_settled.then_some(stamp);
                Ok(Some(bytes))
            }
        }
    }

    /// Takes over what the file says now; for an object that is not valid now, what it said last. So it is for objects
    /// that it had and has not, where a document cannot be read: it may be theirs.
    fn replace(&mut self, contents: Contents) {
        let Contents {
            manifests,
            invalid,
            mut problems,
            notes,
            is_whole,
        } = contents;
        if !is_whole {
            let kept = self.what_is_kept();
            problems.iter_mut().for_each(|problem| *problem += kept);
        }
        let mut kept: Vec<Kept> = manifests
            .into_iter()
            .map(
                |Manifest {
                     position,
                     key,
                     object,
                 }| Kept {
                    position,
                    key,
                    object: object.map(Arc::new),
                },
            )
            .collect();
        let now: BTreeSet<Key> = kept.iter().map(|kept| kept.key.clone()).collect();
        let stays = |old: &Kept| {
            !now.contains(&old.key) && (!is_whole || invalid.iter().any(|(key, _)| *key == old.key))
        };
        kept.extend(self.manifests.drain(..).filter(stays));
        self.manifests = kept;
        self.invalid = invalid;
        self.problems = problems;
        self.notes = notes;
    }

    fn what_is_kept(&self) -> &'static str {
        if self.manifests.is_empty() {
            ""
        } else {
            " (what it said before stays in force)"
        }
    }
}

fn difference(
    old: &BTreeMap<Key, Arc<Object>>,
    new: &BTreeMap<Key, Arc<Object>>,
    own_node: &str,
) -> Batch {
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| match key.kind {
            ObjectKind::Node => Event::NodeChanged(Node::named(own_node)),
            ObjectKind::Service => Event::ServiceDeleted(key.name.clone()),
            ObjectKind::EndpointSlice => Event::SliceDeleted(key.name.clone()),
        });
    let changed = new
        .iter()
        .filter(|(key, object)| old.get(*key) != Some(*object))
        .map(|(_, object)| match Object::clone(object) {
            Object::Node(node) => Event::NodeChanged(node),
            Object::Service(service) => Event::ServiceUpserted(service),
            Object::Slice(slice) => Event::SliceUpserted(slice),
        });
    gone.chain(changed).collect()
}
