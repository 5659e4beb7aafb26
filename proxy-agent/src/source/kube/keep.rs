//! The service of the API servers themselves never loses its last endpoint of a family.
//!
//! An API server that answers exists, so an answer by which `default/kubernetes` has no endpoint is wrong, however it
//! came about: a server that starts with an empty store, one that ends and takes its own endpoint out as the last of
//! them, a list that somebody cut short. Believed, it would take the way to the API server from every pod of this node,
//! that of the CNI and of what could repair it included.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::LazyLock,
    time::Duration,
};

use anyhow::Result;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    model::{EndpointSlice, Event, Family, ObjectName},
    source::{
        Batch,
        convert::{self, Converted},
    },
};

/// Namespace and name are fixed in the API server.
pub static OWN: LazyLock<ObjectName> = LazyLock::new(|| ObjectName::new("default", "kubernetes"));

/// For how long first lists that lack the service are not believed. An API server that restarts takes its endpoint out and puts it back
/// within a few seconds; one that begins with an empty store may be filled again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was in force of the service before this agent.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Before {
    /// It had endpoints.
    must_have: bool,
    /// Itself and its slices, where that is known.
    events: Vec<Event>,
}

impl Before {
    /// It had endpoints, of which nothing is known.
    pub const fn unknown() -> Self {
        Self {
            must_have: true,
            events: Vec::new(),
        }
    }

    /// The objects as an API server would give them. At least one slice has an endpoint.
    pub fn of(service: &Value, slices: &[Value]) -> Result<Self> {
        let mut events = Vec::new();
        if let Converted::Served(service) =
            convert::service(&serde_json::from_value(service.clone())?)?
        {
            events.push(Event::ServiceUpserted(service));
        }
        for slice in slices {
            let slice = convert::endpoint_slice(&serde_json::from_value(slice.clone())?)?;
            if let Converted::Served(slice) = slice {
                events.push(Event::SliceUpserted(slice));
            }
        }
        Ok(Self {
            must_have: true,
            events,
        })
    }

    #[cfg(test)]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

/// Stands between the lists and the model.
#[derive(Default, Debug)]
pub struct Keeper {
    /// The service's slices as the model has them, and as the API server does.
    sent: BTreeMap<ObjectName, EndpointSlice>,
    wanted: BTreeMap<ObjectName, EndpointSlice>,
    has_service: bool,
    /// Ends of lists are held back until the lists have the service, but not for ever.
    before: Before,
    held: Vec<Event>,
    waits_until: Option<Instant>,
    /// The families whose endpoints are kept against what the API server says; it was said so.
    said: BTreeSet<Family>,
}

impl Keeper {
    /// Where the service had endpoints before, a first list without it is not complete.
    pub fn new(before: Before) -> Self {
        Self {
            before,
            ..Self::default()
        }
    }

    /// When to [`Self::give_up`] waiting for the service, if it is waited for.
    pub const fn waits_until(&self) -> Option<Instant> {
        self.waits_until
    }

    /// Believes the lists as they are, but for the service itself: it stays as it was before.
    pub fn give_up(&mut self) -> Batch {
        let mut out = Batch::new();
        let before = mem::take(&mut self.before);
        let known = if before.events.is_empty() {
            "and nobody knows what it was like"
        } else {
            "it stays as it was"
        };
        warn!(
            "the API server's lists lack Service {} or its endpoints after {PATIENCE:?} still: they are believed now, {known}",
            *OWN
        );
        for event in before.events {
            match event {
                Event::ServiceUpserted(service) if !self.has_service => {
                    self.has_service = true;
                    out.push(Event::ServiceUpserted(service));
                }
                Event::SliceUpserted(slice) if !has_endpoint_of(&self.wanted, slice.family) => {
                    self.said.insert(slice.family);
                    self.sent.insert(slice.name.clone(), slice.clone());
                    out.push(Event::SliceUpserted(slice));
                }
                _ => {}
            }
        }
        out.append(&mut self.held);
        self.waits_until = None;
        out
    }

    /// Gives what of the batch is to be believed now, and what was held back before and can be believed now.
    pub fn pass(&mut self, batch: Batch) -> Batch {
        let mut out = Batch::with_capacity(batch.len());
        let mut ends = mem::take(&mut self.held);
        for event in batch {
            match event {
                Event::Synced(_) => ends.push(event),
                Event::ServiceUpserted(service) => {
                    self.has_service |= service.name == *OWN;
                    out.push(Event::ServiceUpserted(service));
                }
                Event::ServiceDeleted(name) if name == *OWN => {
                    warn!(
                        "Service {name} is gone, which cannot be while an API server answers: it stays as it was"
                    );
                }
                Event::SliceUpserted(slice) if slice.service_name() == *OWN => {
                    self.wanted.insert(slice.name.clone(), slice);
                }
                Event::SliceUpserted(slice) => {
                    // The model moves it away from its old owner by itself.
                    self.wanted.remove(&slice.name);
                    self.sent.remove(&slice.name);
                    out.push(Event::SliceUpserted(slice));
                }
                Event::SliceDeleted(name) if self.wanted.contains_key(&name) => {
                    self.wanted.remove(&name);
                }
                other => out.push(other),
            }
        }
        self.settle(&mut out);
        if self.before.must_have && !(self.has_service && has_endpoint(&self.sent)) {
            if !ends.is_empty() && self.waits_until.is_none() {
                warn!(
                    "the API server's lists lack Service {} or its endpoints, which were there before: waiting for them, for \
                     {PATIENCE:?} at most",
                    *OWN
                );
                self.waits_until = Some(Instant::now() + PATIENCE);
            }
            self.held = ends;
        } else {
            self.before = Before::default();
            self.waits_until = None;
            out.extend(ends);
        }
        out
    }

    /// Brings the model's slices of the service in line with the API server's, but for a family that would lose its last
    /// endpoint by that.
    fn settle(&mut self, out: &mut Batch) {
        if self.sent == self.wanted {
            return;
        }
        let kept = FAMILIES.map(|family| {
            has_endpoint_of(&self.sent, family) && !has_endpoint_of(&self.wanted, family)
        });
        for (family, is_kept) in FAMILIES.into_iter().zip(kept) {
            if is_kept && !self.said.contains(&family) {
                warn!(
                    "Service {} has no {family} endpoint any more, which cannot be while an API server answers: its endpoints stay as they were",
                    *OWN
                );
            }
        }
        self.said = FAMILIES
            .into_iter()
            .zip(kept)
            .filter_map(|(family, is_kept)| is_kept.then_some(family))
            .collect();
        let stays = |slice: &EndpointSlice| self.said.contains(&slice.family);
        let mut next: BTreeMap<_, _> = self
            .sent
            .iter()
            .filter(|(_, slice)| stays(slice))
            .map(|(name, slice)| (name.clone(), slice.clone()))
            .collect();
        for (name, slice) in &self.wanted {
            if stays(slice) || next.contains_key(name) {
                continue;
            }
            if self.sent.get(name) != Some(slice) {
                out.push(Event::SliceUpserted(slice.clone()));
            }
            next.insert(name.clone(), slice.clone());
        }
        for name in self.sent.keys() {
            if !next.contains_key(name) {
                out.push(Event::SliceDeleted(name.clone()));
            }
        }
        self.sent = next;
    }
}

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

fn has_endpoint(slices: &BTreeMap<ObjectName, EndpointSlice>) -> bool {
    FAMILIES
        .into_iter()
        .any(|family| has_endpoint_of(slices, family))
}

fn has_endpoint_of(slices: &BTreeMap<ObjectName, EndpointSlice>, family: Family) -> bool {
    slices
        .values()
        .filter(|slice| slice.family == family)
        .flat_map(|slice| &slice.endpoints)
        .any(|endpoint| endpoint.conditions.ready)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Kind;

    fn slice(service: &str, name: &str, endpoints: &[&str]) -> Event {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|address| json!({"addresses": [address]}))
            .collect();
        let object = serde_json::from_value(json!({
            "metadata": {
                "namespace": "default",
                "name": name,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": if name.ends_with("-v6") { "IPv6" } else { "IPv4" },
            "ports": [{"port": 6443}],
            "endpoints": endpoints,
        }))
        .unwrap();
        match convert::endpoint_slice(&object) {
            Ok(Converted::Served(slice)) => Event::SliceUpserted(slice),
            other => panic!("{other:?}"),
        }
    }

    fn service(name: &str) -> Event {
        let object = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]},
        }))
        .unwrap();
        match convert::service(&object) {
            Ok(Converted::Served(service)) => Event::ServiceUpserted(service),
            other => panic!("{other:?}"),
        }
    }

    fn gone(name: &str) -> Event {
        Event::SliceDeleted(ObjectName::new("default", name))
    }

    const ENDS: [Event; 2] = [
        Event::Synced(Kind::Service),
        Event::Synced(Kind::EndpointSlice),
    ];

    #[test]
    fn the_last_endpoint_stays_until_another_one_comes() {
        let mut keeper = Keeper::default();
        let first = slice("kubernetes", "kubernetes", &["192.0.2.1", "192.0.2.2"]);
        assert_eq!(keeper.pass(vec![first.clone()]), [first]);
        let fewer = slice("kubernetes", "kubernetes", &["192.0.2.2"]);
        assert_eq!(keeper.pass(vec![fewer.clone()]), [fewer]);
        assert_eq!(
            keeper.pass(vec![slice("kubernetes", "kubernetes", &[])]),
            []
        );
        assert_eq!(keeper.pass(vec![gone("kubernetes")]), []);
        let next = slice("kubernetes", "other", &["192.0.2.3"]);
        assert_eq!(keeper.pass(vec![next.clone()]), [next, gone("kubernetes")]);
    }

    #[test]
    fn each_family_keeps_its_own() {
        let mut keeper = Keeper::default();
        keeper.pass(vec![
            slice("kubernetes", "k-v4", &["192.0.2.1"]),
            slice("kubernetes", "k-v6", &["2001:db8::1"]),
        ]);
        assert_eq!(keeper.pass(vec![slice("kubernetes", "k-v4", &[])]), []);
        let next = slice("kubernetes", "k-v6", &["2001:db8::2"]);
        assert_eq!(keeper.pass(vec![next.clone()]), [next]);
        assert_eq!(keeper.pass(vec![gone("k-v6")]), []);
        let back = slice("kubernetes", "k-v4", &["192.0.2.2"]);
        assert_eq!(keeper.pass(vec![back.clone()]), [back]);
    }

    #[test]
    fn other_services_lose_theirs() {
        let mut keeper = Keeper::default();
        let events = vec![slice("web", "web-1", &["192.0.2.1"]), gone("web-1")];
        assert_eq!(keeper.pass(events.clone()), events);
        let deleted = vec![Event::ServiceDeleted(ObjectName::new("default", "web"))];
        assert_eq!(keeper.pass(deleted.clone()), deleted);
    }

    #[test]
    fn the_service_itself_stays() {
        let mut keeper = Keeper::default();
        keeper.pass(vec![service("kubernetes")]);
        assert_eq!(keeper.pass(vec![Event::ServiceDeleted(OWN.clone())]), []);
    }

    #[test]
    fn a_first_list_without_it_is_not_believed_where_it_was_before() {
        let mut keeper = Keeper::new(Before::unknown());
        assert_eq!(keeper.pass(ENDS.into()), []);
        assert_eq!(
            keeper.pass(vec![service("kubernetes")]),
            [service("kubernetes")]
        );
        let endpoints = slice("kubernetes", "kubernetes", &["192.0.2.1"]);
        let [services, slices] = ENDS;
        assert_eq!(
            keeper.pass(vec![endpoints.clone()]),
            [endpoints, services, slices]
        );
    }

    #[test]
    fn on_a_new_node_a_list_is_what_it_is() {
        let mut keeper = Keeper::new(Before::default());
        assert_eq!(keeper.pass(ENDS.into()), ENDS);
        assert_eq!(keeper.waits_until(), None);
    }

    #[test]
    fn it_is_not_waited_for_without_end_and_stays_as_it_was() {
        let was = slice("kubernetes", "as-it-was", &["192.0.2.1"]);
        let before = Before {
            must_have: true,
            events: vec![service("kubernetes"), was.clone()],
        };
        let mut keeper = Keeper::new(before.clone());
        let other = slice("web", "web-1", &["192.0.2.9"]);
        assert_eq!(keeper.pass(vec![other.clone()]), [other]);
        assert_eq!(keeper.waits_until(), None, "the lists are not read yet");
        assert_eq!(keeper.pass(ENDS.into()), []);
        assert!(keeper.waits_until().is_some());
        let [services, slices] = ENDS;
        assert_eq!(
            keeper.give_up(),
            [service("kubernetes"), was, services, slices]
        );
        assert_eq!(keeper.waits_until(), None);
        // From here on it is kept as any other.
        assert_eq!(
            keeper.pass(vec![slice("kubernetes", "kubernetes", &[])]),
            []
        );
        let next = slice("kubernetes", "kubernetes", &["192.0.2.3"]);
        assert_eq!(keeper.pass(vec![next.clone()]), [next, gone("as-it-was")]);
    }

    #[test]
    fn what_the_lists_have_of_it_is_not_replaced_by_what_was() {
        let was = slice("kubernetes", "was-v6", &["2001:db8::9"]);
        let mut keeper = Keeper::new(Before {
            must_have: true,
            events: vec![service("kubernetes"), was],
        });
        let now = slice("kubernetes", "now-v6", &["2001:db8::1"]);
        keeper.pass(vec![now]);
        keeper.pass(ENDS.into());
        assert!(
            keeper
                .give_up()
                .iter()
                .all(|event| !matches!(event, Event::SliceUpserted(_)))
        );
    }
}
