//! What the controller knows of the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use kube::runtime::watcher::Event;

use crate::{
    balancer::{
        crd::{IPAddressPoolSpec, IPAddressPoolStatus},
        demand::Classes,
        object::{Deployment, IPAddressPool, Namespace, Service},
        pool::{Namespaces, Pool},
    },
    model::ObjectName,
    source::{convert::FieldError, kube::Item},
};

/// What a follower saw.
#[derive(Debug)]
pub enum Seen {
    Service(Event<Item<Service>>),
    Pool(Event<Item<IPAddressPool>>),
    Namespace(Event<Item<Namespace>>),
    /// MetalLB's controller, as its manifests label it.
    ByManifest(Event<Item<Deployment>>),
    /// The same, as its chart does.
    ByChart(Event<Item<Deployment>>),
    Failed(&'static str),
}

/// A Service, and the version that it was read at.
#[derive(Clone, Debug)]
pub struct KnownService {
    pub object: Service,
    pub version: String,
}

#[derive(Clone, Default, Debug)]
pub struct KnownPool {
    pub uid: Option<String>,
    pub created: i64,
    /// As it was read last in a form that can be.
    pub spec: Option<IPAddressPoolSpec>,
    pub status: Option<IPAddressPoolStatus>,
    /// What is wrong with what it says now.
    pub problem: Option<FieldError>,
}

/// The pools.
#[derive(Debug)]
pub struct Usable {
    pub good: BTreeMap<Arc<str>, Pool>,
    /// Those that cannot be read.
    pub unread: BTreeSet<Arc<str>>,
    /// What is wrong with each that is refused.
    pub problems: BTreeMap<Arc<str>, FieldError>,
}

/// The objects of one kind that a list has.
#[derive(Debug, Default)]
struct Listing {
    listed: BTreeSet<ObjectName>,
    is_whole: bool,
}

/// What an event says of one object.
enum Word<K> {
    Is(Box<Item<K>>),
    Gone(ObjectName),
}

impl Listing {
    /// The objects that an event changes; `known` are those of before.
    fn take<K>(
        &mut self,
        event: Event<Item<K>>,
        known: impl Iterator<Item = ObjectName>,
    ) -> Vec<Word<K>> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(item) => {
                self.listed.insert(item.name());
                vec![Word::Is(Box::new(item))]
            }
            Event::InitDone => {
                self.is_whole = true;
                let listed = mem::take(&mut self.listed);
                known
                    .filter(|name| !listed.contains(name))
                    .map(Word::Gone)
                    .collect()
            }
            Event::Apply(item) => vec![Word::Is(Box::new(item))],
            Event::Delete(item) => vec![Word::Gone(item.name())],
        }
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub services: BTreeMap<ObjectName, KnownService>,
    /// Services that changed since they were looked at.
    pub touched: BTreeSet<ObjectName>,
    pub pools: BTreeMap<ObjectName, KnownPool>,
    /// Pools or namespaces changed.
    pub pools_touched: bool,
    namespaces: Namespaces,
    /// MetalLB's controllers that run, and the class of each, by the two ways to find them.
    metallb: [BTreeMap<ObjectName, Option<String>>; 2],
    lists: [Listing; 5],
}

impl World {
    pub fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Service(event) => self.service(event),
            Seen::Pool(event) => self.pool(event),
            Seen::Namespace(event) => self.namespace(event),
            Seen::ByManifest(event) => self.metallb(event, 0),
            Seen::ByChart(event) => self.metallb(event, 1),
            Seen::Failed(what) => tracing::debug!("{what} cannot be followed now"),
        }
    }

    /// Is every list read?
    pub fn is_whole(&self) -> bool {
        self.lists.iter().all(|list| list.is_whole)
    }

    /// A controller of MetalLB that gives addresses to Services of these classes, too.
    pub fn rival(&self, classes: &Classes) -> Option<&ObjectName> {
        let mut all = self.metallb.iter().flatten();
        all.find(|(_, class)| classes.have(class.as_deref()))
            .map(|(name, _)| name)
    }

    fn service(&mut self, event: Event<Item<Service>>) {
        for word in self.lists[0].take(event, self.services.keys().cloned()) {
            match word {
                Word::Is(item) => {
                    let name = item.name();
                    let version = item.version().to_owned();
                    // One that cannot be read stays as it was.
                    if let Ok(object) = item.object {
                        self.learn(&name, *object, version);
                    }
                }
                Word::Gone(name) => {
                    self.services.remove(&name);
                    self.touched.insert(name);
                }
            }
        }
    }

    /// A Service is this, unless something later is known.
    pub fn learn(&mut self, name: &ObjectName, object: Service, version: String) {
        let number = |text: &str| text.parse::<u64>().ok();
        let known = self.services.get(name);
        let is_same = known.is_some_and(|known| known.object.metadata.uid == object.metadata.uid);
        if let (true, Some(old), Some(new)) = (
            is_same,
            known.and_then(|known| number(&known.version)),
            number(&version),
        ) && new < old
        {
            return;
        }
        self.services
            .insert(name.clone(), KnownService { object, version });
        self.touched.insert(name.clone());
    }

    fn pool(&mut self, event: Event<Item<IPAddressPool>>) {
        for word in self.lists[1].take(event, self.pools.keys().cloned()) {
            match word {
                Word::Is(item) => {
                    let name = item.name();
                    let before = self.pools.get(&name).cloned();
                    let pool = match item.object {
                        Ok(object) => KnownPool {
                            uid: object.metadata.uid,
                            created: object
                                .metadata
                                .creation_timestamp
                                .map_or(0, |time| time.as_second()),
                            spec: Some(object.spec),
                            status: object.status,
                            problem: None,
                        },
                        // What it said before stays in force.
                        Err(problem) => KnownPool {
                            problem: Some(problem),
                            ..before.clone().unwrap_or_default()
                        },
                    };
                    self.pools_touched |= before.is_none_or(|before| {
                        before.spec != pool.spec || before.problem != pool.problem
                    });
                    self.pools.insert(name, pool);
                }
                Word::Gone(name) => {
                    self.pools.remove(&name);
                    self.pools_touched = true;
                }
            }
        }
    }

    fn namespace(&mut self, event: Event<Item<Namespace>>) {
        let known: Vec<_> = self
            .namespaces
            .keys()
            .map(|name| ObjectName::new("", Arc::clone(name)))
            .collect();
        for word in self.lists[2].take(event, known.into_iter()) {
            match word {
                Word::Is(item) => {
                    let name = item.name().name;
                    if let Ok(object) = item.object {
                        let labels = object.metadata.labels.unwrap_or_default();
                        let before = self.namespaces.insert(name, labels.clone());
                        self.pools_touched |= before != Some(labels);
                    }
                }
                Word::Gone(name) => {
                    self.namespaces.remove(&name.name);
                    self.pools_touched = true;
                }
            }
        }
    }

    fn metallb(&mut self, event: Event<Item<Deployment>>, way: usize) {
        for word in self.lists[3 + way].take(event, self.metallb[way].keys().cloned()) {
            match word {
                Word::Is(item) => {
                    let name = item.name();
                    let Ok(object) = item.object else { continue };
                    // One that is scaled to none runs no more.
                    if object.spec.replicas == Some(0) {
                        self.metallb[way].remove(&name);
                        continue;
                    }
                    let mut args = object
                        .spec
                        .template
                        .spec
                        .containers
                        .iter()
                        .flat_map(|one| one.args.iter().flatten());
                    let class =
                        args.find_map(|arg| arg.trim_start_matches('-').strip_prefix("lb-class="));
                    self.metallb[way].insert(
                        name,
                        class.filter(|class| !class.is_empty()).map(str::to_owned),
                    );
                }
                Word::Gone(name) => {
                    self.metallb[way].remove(&name);
                }
            }
        }
    }

    /// The pools, as far as they can be used.
    pub fn usable_pools(&self) -> Usable {
        let mut good: BTreeMap<Arc<str>, Pool> = BTreeMap::new();
        let mut unread = BTreeSet::new();
        let mut problems = BTreeMap::new();
        let mut all: Vec<_> = self.pools.iter().collect();
        // Of two pools that overlap, the older one goes on.
        all.sort_by_key(|(name, pool)| (pool.created, *name));
        for (ObjectName { name, .. }, pool) in all {
            if let Some(problem) = &pool.problem {
                problems.insert(Arc::clone(name), problem.clone());
            }
            let Some(spec) = &pool.spec else {
                unread.insert(Arc::clone(name));
                continue;
            };
            match Pool::of(spec, &self.namespaces).and_then(|pool| apart(pool, &good)) {
                Ok(pool) => {
                    good.insert(Arc::clone(name), pool);
                }
                Err(problem) => {
                    unread.insert(Arc::clone(name));
                    problems.insert(Arc::clone(name), problem);
                }
            }
        }
        Usable {
            good,
            unread,
            problems,
        }
    }
}

/// The pool, if it shares no address with another one.
fn apart(pool: Pool, others: &BTreeMap<Arc<str>, Pool>) -> Result<Pool, FieldError> {
    for (i, range) in pool.ranges.iter().enumerate() {
        for (name, other) in others {
            if let Some(theirs) = other.ranges.iter().find(|theirs| theirs.overlaps(*range)) {
                return Err(FieldError {
                    field: format!("spec.addresses[{i}]"),
                    message: format!("{range} overlaps {theirs} of IPAddressPool {name}"),
                });
            }
        }
    }
    Ok(pool)
}
