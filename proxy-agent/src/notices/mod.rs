//! What people should know of a Service: why it is not served as its object says.
//!
//! In: what each part of the agent has to say of a Service *now*, in place of what it said before. Out: the same for those
//! who look: `proxy-agent get` (a file beside the names), Events on the Service (`source/kube/events`), a metric.
//!
//! The one rule: a notice holds for as long as its cause does, and the room that notices take is bounded, whatever objects
//! say.
//!
//! | file | subject |
//! |---|---|
//! | `text` | warnings of the model, as notices |
//! | `file` | where the commands find them |

mod file;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::ObjectName;

pub use self::{
    file::{Entry as ToldOf, Told, keep, read, remove},
    text::{of_warnings, shape},
};

/// Services of which something is told; of others, it is counted.
const SERVICES: usize = 4096;
/// Bytes of one message: what an Event takes (`NoteLengthLimit` in Kubernetes' validation).
const MESSAGE: usize = 1000;

/// Why a Service is not served as its object says, in the words of an Event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// A field of the Service or of one of its EndpointSlices is wrong: the object stays as it was, or is left out.
    FieldRefused,
    /// An annotation of the Service says what is not understood: the default holds in its place.
    FieldIgnored,
    /// An address that no Service may have here.
    AddressRefused,
    /// An endpoint that no slice may name here.
    EndpointRefused,
    /// Another Service has the address and port, or the node port.
    AddressTaken,
    /// A table of this node, or the Service's share of it, is full.
    NoRoom,
    /// Another program of this node has the health-check node port.
    HealthCheckPortTaken,
    /// It has no address at all: nothing is wrong, and nothing can be served.
    NoAddress,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::FieldRefused,
        Self::FieldIgnored,
        Self::AddressRefused,
        Self::EndpointRefused,
        Self::AddressTaken,
        Self::NoRoom,
        Self::HealthCheckPortTaken,
        Self::NoAddress,
    ];

    /// As Events and `get` have it.
    pub fn text(self) -> String {
        format!("{self:?}")
    }

    /// Is it so on this node only?
    pub const fn is_of_node(self) -> bool {
        matches!(self, Self::NoRoom | Self::HealthCheckPortTaken)
    }

    /// Should somebody do something?
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::NoAddress)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    pub reason: Reason,
    pub message: String,
}

impl Notice {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE {
            let mut end = MESSAGE - "...".len();
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message += "...";
        }
        Self { reason, message }
    }
}

/// Who says it. What one says takes the place of what it said before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Topic {
    /// The source, of the Service.
    Object,
    /// The source, of this EndpointSlice.
    Slice(Arc<str>),
    /// The model, of addresses, endpoints and conflicts.
    Model,
    /// The plan, of room.
    Room,
    /// Its health-check node port there.
    Check(SocketAddr),
}

/// Shared by all who tell and all who look.
#[derive(Clone, Default, Debug)]
pub struct Notices(Arc<Shared>);

#[derive(Default, Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Default, Debug)]
struct State {
    by_service: BTreeMap<ObjectName, BTreeMap<Topic, Vec<Notice>>>,
    /// Services that have type and ports, but no address.
    shapes: BTreeMap<ObjectName, Shape>,
    has_said_full: bool,
}

/// What a Service is that has no address, as `get` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    pub r#type: String,
    /// As `80/TCP`.
    pub ports: Vec<String>,
}

impl Notices {
    /// All that `topic` has to say of a Service now.
    pub fn set(&self, service: &ObjectName, topic: Topic, notices: Vec<Notice>) {
        let mut state = self.state();
        let is_changed = if notices.is_empty() {
            state.clear(service, &topic)
        } else {
            state.set(service, topic, notices)
        };
        drop(state);
        if is_changed {
            self.0.changes.send_modify(|number| *number += 1);
        }
    }

    /// What a Service without an address is; `None` for one that has one.
    pub fn set_shape(&self, service: &ObjectName, shape: Option<Shape>) {
        let mut state = self.state();
        let has_room = state.shapes.len() < SERVICES || state.shapes.contains_key(service);
        let is_changed = match shape {
            None => state.shapes.remove(service).is_some(),
            Some(shape) if has_room && state.shapes.get(service) != Some(&shape) => {
                state.shapes.insert(service.clone(), shape);
                true
            }
            Some(_) => false,
        };
        drop(state);
        if is_changed {
            self.0.changes.send_modify(|number| *number += 1);
        }
    }

    /// Everything that holds now, by Service.
    pub fn all(&self) -> BTreeMap<ObjectName, Vec<Notice>> {
        let state = self.state();
        let all = state.by_service.iter();
        all.map(|(name, topics)| {
            let notices = topics.values().flatten().cloned().collect();
            (name.clone(), notices)
        })
        .collect()
    }

    /// How many Services have a notice of each reason.
    pub fn counts(&self) -> BTreeMap<Reason, usize> {
        let mut counts: BTreeMap<_, _> = Reason::ALL.map(|reason| (reason, 0)).into();
        let state = self.state();
        for topics in state.by_service.values() {
            let mut reasons: Vec<_> = topics.values().flatten().map(|one| one.reason).collect();
            reasons.sort_unstable();
            reasons.dedup();
            for reason in reasons {
                *counts.entry(reason).or_default() += 1;
            }
        }
        counts.insert(Reason::NoAddress, state.shapes.len());
        counts
    }

    /// For the commands of this node.
    pub fn told(&self) -> Told {
        let mut told = Told::default();
        for (name, notices) in self.all() {
            told.of(&name).notices = notices;
        }
        for (name, shape) in &self.state().shapes {
            told.of(name).shape = Some(shape.clone());
        }
        told
    }

    /// Tells that something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values: whoever panicked left nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, service: &ObjectName, topic: Topic, notices: Vec<Notice>) -> bool {
        let count = self.by_service.len();
        let topics = match self.by_service.entry(service.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if count < SERVICES => entry.insert(BTreeMap::new()),
            Entry::Vacant(_) => {
                if !std::mem::replace(&mut self.has_said_full, true) {
                    tracing::warn!(
                        "more than {SERVICES} Services have notices: of the others only the log tells"
                    );
                }
                return false;
            }
        };
        let is_new = topics.get(&topic) != Some(&notices);
        topics.insert(topic, notices);
        is_new
    }

    fn clear(&mut self, service: &ObjectName, topic: &Topic) -> bool {
        let Some(topics) = self.by_service.get_mut(service) else {
            return false;
        };
        let was_there = topics.remove(topic).is_some();
        if topics.is_empty() {
            self.by_service.remove(service);
        }
        was_there
    }
}
