//! Works out what an object, or the end of a list, changes.

use std::{
    collections::{HashMap, HashSet},
    mem,
};

use kube::runtime::watcher;
use tracing::{debug, error};

use super::item::Item;
use crate::{
    model::{Event, Kind, ObjectName},
    notices::{Notice, Notices, Reason, Topic},
    source::{
        Batch,
        convert::{self, Converted, FieldError, objects},
    },
};

/// A kind of object, and its events.
pub trait Followed {
    type Object;
    /// As messages call it.
    const NAME: &'static str;
    /// The list whose end is told.
    const LIST: Option<Kind>;

    fn convert(object: &Self::Object) -> Result<Converted<Event>, FieldError>;

    /// Where to tell what is wrong with the object of this name, where it is for a Service to tell.
    fn told_at(name: &ObjectName, object: Option<&Self::Object>) -> Option<(ObjectName, Topic)>;

    /// What it means that an object is gone, if anything.
    fn gone(name: ObjectName) -> Option<Event>;
}

#[derive(Debug)]
pub struct Services;

impl Followed for Services {
    type Object = objects::Service;
    const NAME: &'static str = "Service";
    const LIST: Option<Kind> = Some(Kind::Service);

    fn convert(object: &objects::Service) -> Result<Converted<Event>, FieldError> {
        Ok(match convert::service(object)? {
            Converted::Served(service) => Converted::Served(Event::ServiceUpserted(service)),
            Converted::Skipped(why) => Converted::Skipped(why),
        })
    }

    fn told_at(name: &ObjectName, _: Option<&objects::Service>) -> Option<(ObjectName, Topic)> {
        Some((name.clone(), Topic::Object))
    }

    fn gone(name: ObjectName) -> Option<Event> {
        Some(Event::ServiceDeleted(name))
    }
}

#[derive(Debug)]
pub struct Slices;

impl Followed for Slices {
    type Object = objects::EndpointSlice;
    const NAME: &'static str = "EndpointSlice";
    const LIST: Option<Kind> = Some(Kind::EndpointSlice);

    fn convert(object: &objects::EndpointSlice) -> Result<Converted<Event>, FieldError> {
        Ok(match convert::endpoint_slice(object)? {
            Converted::Served(slice) => Converted::Served(Event::SliceUpserted(slice)),
            Converted::Skipped(why) => Converted::Skipped(why),
        })
    }

    fn told_at(
        name: &ObjectName,
        object: Option<&objects::EndpointSlice>,
    ) -> Option<(ObjectName, Topic)> {
        let labels = object?.metadata.labels.as_ref()?;
        let service = labels.get("kubernetes.io/service-name");
        let service = service.filter(|name| convert::is_service_name(name))?;
        let service = ObjectName::new(&*name.namespace, service.as_str());
        Some((service, Topic::Slice(name.name.clone())))
    }

    fn gone(name: ObjectName) -> Option<Event> {
        Some(Event::SliceDeleted(name))
    }
}

#[derive(Debug)]
pub struct Nodes;

impl Followed for Nodes {
    type Object = objects::Node;
    const NAME: &'static str = "Node";
    const LIST: Option<Kind> = None;

    fn convert(object: &objects::Node) -> Result<Converted<Event>, FieldError> {
        convert::node(object).map(|node| Converted::Served(Event::NodeChanged(node)))
    }

    fn told_at(_: &ObjectName, _: Option<&objects::Node>) -> Option<(ObjectName, Topic)> {
        None
    }

    /// The agent runs on it still.
    fn gone(_: ObjectName) -> Option<Event> {
        None
    }
}

/// The objects of one kind that the model has.
#[derive(Debug)]
pub struct Known<F> {
    here: HashSet<ObjectName>,
    /// Names in the list that is being read.
    listed: HashSet<ObjectName>,
    /// What is wrong with objects, as it was said.
    problems: HashMap<ObjectName, String>,
    was_complete: bool,
    notices: Notices,
    /// Where something is told of an object.
    told: HashMap<ObjectName, (ObjectName, Topic)>,
    kind: std::marker::PhantomData<F>,
}

impl<F> Default for Known<F> {
    fn default() -> Self {
        Self {
            here: HashSet::new(),
            listed: HashSet::new(),
            problems: HashMap::new(),
            was_complete: false,
            notices: Notices::default(),
            told: HashMap::new(),
            kind: std::marker::PhantomData,
        }
    }
}

impl<F: Followed> Known<F> {
    /// What is wrong with objects is told there.
    pub fn tell(&mut self, notices: Notices) {
        self.notices = notices;
    }

    fn take_back(&mut self, name: &ObjectName) {
        if let Some((service, topic)) = self.told.remove(name) {
            self.notices.set(&service, topic, Vec::new());
        }
    }

    /// Appends what `event` changes.
    pub fn take(&mut self, event: watcher::Event<Item<F::Object>>, batch: &mut Batch) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(item) => {
                self.listed.insert(item.name());
                self.apply(item, batch);
            }
            watcher::Event::InitDone => self.end_list(batch),
            watcher::Event::Apply(item) => self.apply(item, batch),
            watcher::Event::Delete(item) => self.delete(&item.name(), batch),
        }
    }

    fn apply(&mut self, item: Item<F::Object>, batch: &mut Batch) {
        let name = item.name();
        let told_at = F::told_at(&name, item.object.as_deref().ok());
        match item.object.and_then(|object| F::convert(&object)) {
            Ok(Converted::Served(event)) => {
                self.problems.remove(&name);
                self.take_back(&name);
                // The event's own name, which the model shares with others.
                self.here.replace(event.object().cloned().unwrap_or(name));
                batch.push(event);
            }
            Ok(Converted::Skipped(why)) => {
                debug!("{} {name}: {why}", F::NAME);
                self.delete(&name, batch);
            }
            Err(problem) => {
                let problem = problem.to_string();
                if self.problems.get(&name) != Some(&problem) {
                    let instead = if self.here.contains(&name) {
                        "it stays as it was"
                    } else {
                        "it is left out"
                    };
                    error!("{} {name}: {problem}; {instead}", F::NAME);
                    self.take_back(&name);
                    if let Some((service, topic)) = told_at {
                        let of = match topic {
                            Topic::Slice(_) => format!("EndpointSlice {}: ", name.name),
                            _ => String::new(),
                        };
                        let notice = format!("{of}{problem}; {instead}");
                        let notice = Notice::new(Reason::FieldRefused, notice);
                        self.notices.set(&service, topic.clone(), vec![notice]);
                        self.told.insert(name.clone(), (service, topic));
                    }
                    self.problems.insert(name, problem);
                }
            }
        }
    }

    fn delete(&mut self, name: &ObjectName, batch: &mut Batch) {
        self.problems.remove(name);
        self.take_back(name);
        if self.here.remove(name) {
            batch.extend(F::gone(name.clone()));
        }
    }

    /// Only now is it known what is not there any more.
    fn end_list(&mut self, batch: &mut Batch) {
        let listed = mem::take(&mut self.listed);
        let mut gone: Vec<_> = self.here.difference(&listed).cloned().collect();
        gone.sort();
        for name in gone {
            self.delete(&name, batch);
        }
        let gone: Vec<_> = self
            .problems
            .extract_if(|name, _| !listed.contains(name))
            .collect();
        for (name, _) in gone {
            self.take_back(&name);
        }
        if !mem::replace(&mut self.was_complete, true) {
            batch.extend(F::LIST.map(Event::Synced));
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    use serde_json::json;

    use super::*;

    fn service(name: &str, port: serde_json::Value) -> Item<objects::Service> {
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]},
        }))
        .unwrap()
    }

    fn good(name: &str) -> Item<objects::Service> {
        service(name, json!(80))
    }

    /// A word for each event that comes out.
    fn take(
        known: &mut Known<Services>,
        events: impl IntoIterator<Item = watcher::Event<Item<objects::Service>>>,
    ) -> Vec<String> {
        let mut batch = Batch::new();
        for event in events {
            known.take(event, &mut batch);
        }
        batch
            .into_iter()
            .map(|event| match event {
                Event::ServiceUpserted(service) => format!("+{}", service.name.name),
                Event::ServiceDeleted(name) => format!("-{}", name.name),
                Event::Synced(Kind::Service) => "complete".to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_list_is_complete_at_its_end_and_once() {
        let mut known = Known::default();
        let out = take(&mut known, [Init, InitApply(good("a")), InitDone]);
        assert_eq!(out, ["+a", "complete"]);
        let out = take(&mut known, [Init, InitApply(good("a")), InitDone]);
        assert_eq!(out, ["+a"]);
    }

    #[test]
    fn only_a_complete_list_takes_objects_away() {
        let mut known = Known::default();
        take(
            &mut known,
            [Init, InitApply(good("a")), InitApply(good("b")), InitDone],
        );
        // A list that breaks off, and begins again.
        let out = take(&mut known, [Init, InitApply(good("c")), Init]);
        assert_eq!(out, ["+c"]);
        let out = take(&mut known, [InitApply(good("a")), InitDone]);
        assert_eq!(out, ["+a", "-b", "-c"]);
    }

    #[test]
    fn an_object_that_is_not_valid_stays_as_it_was() {
        let mut known = Known::default();
        take(&mut known, [Init, InitApply(good("a")), InitDone]);
        let bad = || service("a", json!("eighty"));
        assert_eq!(take(&mut known, [Apply(bad())]), [""; 0]);
        let out = take(
            &mut known,
            [Init, InitApply(bad()), InitApply(good("b")), InitDone],
        );
        assert_eq!(out, ["+b"], "others go on");
        assert_eq!(take(&mut known, [Delete(bad())]), ["-a"]);
    }

    #[test]
    fn what_is_no_longer_for_this_proxy_is_gone() {
        let mut known = Known::default();
        take(&mut known, [Init, InitApply(good("a")), InitDone]);
        let headless: Item<objects::Service> = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "a"},
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
        }))
        .unwrap();
        assert_eq!(take(&mut known, [Apply(headless)]), ["-a"]);
    }

    #[test]
    fn a_deletion_of_what_was_never_there_is_nothing() {
        let mut known = Known::default();
        assert_eq!(take(&mut known, [Delete(good("a"))]), [""; 0]);
    }
}
