//! Events: what a Service was given, or why it was not, and what is wrong with a pool.
//!
//! The one rule: an Event is sent when what it says has become so, once, and nobody waits for it.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::{balancer::crd::GROUP, model::ObjectName};

/// Events that may wait.
const WAITING: usize = 1024;
/// Bytes of a message: what an Event takes.
const MESSAGE: usize = 1000;

/// Tells by Events, on a task of its own.
#[derive(Clone, Debug)]
pub struct Teller(Option<mpsc::Sender<(Event, ObjectReference)>>);

/// What an Event is about.
#[derive(Clone, Copy, Debug)]
pub enum About {
    Service,
    Pool,
}

impl Teller {
    /// Sends what it is told as the controller `instance`; nothing, if `is_on` is false.
    pub fn start(client: Client, instance: String, is_on: bool) -> Self {
        if !is_on {
            return Self(None);
        }
        let (sender, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let reporter = Reporter {
            controller: "portside-controller".to_owned(),
            instance: Some(instance),
        };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((event, about)) = waiting.recv().await {
                if let Err(error) = recorder.publish(&event, &about).await {
                    warn!("an Event is lost: {error}");
                }
            }
        });
        Self(Some(sender))
    }

    pub fn tell(
        &self,
        about: About,
        name: &ObjectName,
        uid: Option<&String>,
        reason: &str,
        is_good: bool,
        mut note: String,
    ) {
        if note.len() > MESSAGE {
            let mut end = MESSAGE;
            while !note.is_char_boundary(end) {
                end -= 1;
            }
            note.truncate(end);
        }
        let (kind, version) = match about {
            About::Service => ("Service", "v1".to_owned()),
            About::Pool => ("IPAddressPool", format!("{GROUP}/v1beta1")),
        };
        let Some(sender) = &self.0 else { return };
        let event = Event {
            type_: match is_good {
                true => EventType::Normal,
                false => EventType::Warning,
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(version),
            kind: Some(kind.to_owned()),
            namespace: Some(name.namespace.to_string()),
            name: Some(name.name.to_string()),
            uid: uid.cloned(),
            ..ObjectReference::default()
        };
        if sender.try_send((event, reference)).is_err() {
            debug!("too many Events wait: {reason} of {name} is not told");
        }
    }
}
