//! Watches: JSON lines, one an event, sent as they happen.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{self, Instant};

use super::Shared;
use super::object::Object;
use super::query::Query;
use super::resource::Target;
use super::status::Refusal;
use super::store::Change;

/// A real one sends a bookmark about once a minute; tests have less patience.
const BOOKMARK_EVERY: Duration = Duration::from_secs(1);

/// A watch's length where the client names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// The annotation of the bookmark that ends the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub struct Watch {
    shared: Arc<Shared>,
    target: Target,
    query: Query,
    version: u64,
    first: Vec<Bytes>,
    end: Instant,
    /// How often silence had fallen when it began.
    silences: u64,
}

impl Watch {
    /// Begins a watch, or says why it cannot.
    pub fn begin(shared: Arc<Shared>, target: Target, query: Query) -> Result<Self, Refusal> {
        let mut first = Vec::new();
        let version = match query.since()? {
            Some(version) if !query.initial_events => {
                shared.store.changes(target.resource, version)?;
                version
            }
            _ => {
                let (version, objects) = shared.store.snapshot(target.resource, None)?;
                let fitting = objects
                    .iter()
                    .filter(|(key, object)| query.fits(&target, key, object));
                first.extend(fitting.map(|(_, object)| event("ADDED", object.text())));
                if query.initial_events && query.bookmarks {
                    first.push(bookmark(
                        &target,
                        version,
                        json!({INITIAL_EVENTS_END: "true"}),
                    ));
                }
                version
            }
        };
        let end = Instant::now() + query.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let silences = shared.faults().silences();
        Ok(Self {
            silences,
            shared,
            target,
            query,
            version,
            first,
            end,
        })
    }

    /// Sends events until the time is over, the client is gone or a fault ends it.
    pub async fn send(mut self, lines: Sender<Bytes>) {
        let mut versions = self.shared.store.subscribe();
        let mut events = std::mem::take(&mut self.first);
        let mut sent = 0;
        loop {
            for one in events.drain(..) {
                let resource = self.target.resource;
                let (cut, delay, twice) = {
                    let faults = self.shared.faults();
                    (
                        faults.cut(resource),
                        faults.delay(resource),
                        faults.duplicates(resource),
                    )
                };
                if cut.is_some_and(|count| sent >= count) {
                    return;
                }
                if let Some(delay) = delay {
                    time::sleep(delay).await;
                }
                for _ in 0..1 + usize::from(twice) {
                    if lines.send(one.clone()).await.is_err() {
                        return;
                    }
                }
                sent += 1;
                if cut.is_some_and(|count| sent >= count) {
                    return;
                }
            }
            let quiet = self.end.min(Instant::now() + BOOKMARK_EVERY);
            let waited = tokio::select! {
                waited = time::timeout_at(quiet, versions.wait_for(|last| *last > self.version)) => waited.is_ok(),
                () = lines.closed() => return,
            };
            if self.shared.faults().silences() > self.silences {
                return lines.closed().await;
            }
            if Instant::now() >= self.end {
                return;
            }
            if !waited {
                if self.query.bookmarks {
                    let mark = bookmark(&self.target, self.version, json!({}));
                    if lines.send(mark).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            match self
                .shared
                .store
                .changes(self.target.resource, self.version)
            {
                Ok((version, changes)) => {
                    self.version = version;
                    events.extend(changes.iter().filter_map(|change| self.seen(change)));
                }
                Err(expired) => {
                    let error = event("ERROR", expired.status().to_string().as_bytes());
                    // The watch ends here, whether or not the client still hears why.
                    let _ = lines.send(error).await;
                    return;
                }
            }
        }
    }

    /// A change as the selectors show it: an object that begins to fit is added, one that ceases to is deleted.
    fn seen(&self, change: &Change) -> Option<Bytes> {
        let fits = |object: &Arc<Object>| self.query.fits(&self.target, &change.key, object);
        let before = change.old.as_ref().is_some_and(fits);
        match (&change.new, before) {
            (Some(new), true) if fits(new) => Some(event("MODIFIED", new.text())),
            (Some(new), false) if fits(new) => Some(event("ADDED", new.text())),
            (Some(new), true) => {
                let mut last = change.old.as_deref().map(|old| Value::clone(old))?;
                last["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"].clone();
                Some(event("DELETED", last.to_string().as_bytes()))
            }
            (None, true) => {
                let last = change.deleted.as_ref()?;
                Some(event("DELETED", last.text()))
            }
            (_, false) => None,
        }
    }
}

/// A line: the event `kind` with an object in JSON.
fn event(kind: &str, object: &[u8]) -> Bytes {
    let parts: [&[u8]; 5] = [
        b"{\"type\":\"",
        kind.as_bytes(),
        b"\",\"object\":",
        object,
        b"}\n",
    ];
    parts.concat().into()
}

fn bookmark(target: &Target, version: u64, annotations: Value) -> Bytes {
    let object = json!({
        "kind": target.resource.kind(), "apiVersion": target.resource.group_version(),
        "metadata": {"resourceVersion": version.to_string(), "annotations": annotations},
    });
    event("BOOKMARK", object.to_string().as_bytes())
}
