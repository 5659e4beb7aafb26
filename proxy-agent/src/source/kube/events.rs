//! Notices as Events on their Services, where `kubectl describe service` shows them.
//!
//! What holds for the whole cluster has one Event that all nodes know by its name: the first of them creates it, for the
//! others it is there already. What holds for one node has its own. An Event is repeated while its cause holds, as API
//! servers forget Events after an hour.
//!
//! The one rule: Events are few. Each has a pause before it may change again, all have a common bucket, and what cannot be
//! sent now is not kept.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use http::{Request, StatusCode};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::model::ObjectName;
use crate::notices::{Notice, Notices, Reason};

/// From an Event to its next change.
const PAUSE: Duration = Duration::from_secs(10);
/// From an Event to its repetition.
const REPEAT: Duration = Duration::from_secs(30 * 60);
/// Requests that may be made at once, and how long until there is one more.
const BURST: u32 = 25;
const EVERY: Duration = Duration::from_millis(500);
/// From an answer that forbids Events, or none at all, to the next try.
const RETRY: Duration = Duration::from_secs(60);
/// From a change to a look at it.
const SETTLE: Duration = Duration::from_millis(500);
/// Nodes that see one cause at once do not all ask at once.
const SPREAD: Duration = Duration::from_secs(3);

/// An Event, by what it is about.
type Key = (ObjectName, Reason);

#[derive(Debug)]
struct Posted {
    message: String,
    at: Instant,
    first: Timestamp,
    count: u32,
    /// This node created it, and repeats it.
    is_own: bool,
}

/// Tells the API server of `client` what `notices` say, as the agent of `node`, for ever.
pub async fn publish(client: Client, notices: Notices, node: String) {
    let mut changes = notices.changes();
    let mut events = Events {
        client,
        node,
        posted: HashMap::new(),
        bucket: Bucket::new(),
    };
    sleep(events.turn()).await;
    loop {
        changes.borrow_and_update();
        let next = events.follow(&notices).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
        }
        // What comes together is looked at together.
        sleep(SETTLE).await;
    }
}

struct Events {
    client: Client,
    node: String,
    posted: HashMap<Key, Posted>,
    bucket: Bucket,
}

impl Events {
    /// Sends what is due, and says when there will be something again.
    async fn follow(&mut self, notices: &Notices) -> Instant {
        let wanted = wanted(notices);
        self.posted.retain(|key, _| wanted.contains_key(key));
        let mut next = Instant::now() + REPEAT;
        for (key, message) in wanted {
            match self.due(&key, &message) {
                Some(at) if at > Instant::now() => next = next.min(at),
                None => {}
                Some(_) => {
                    self.bucket.take().await;
                    if let Err(problem) = self.send(&key, message).await {
                        warn!(
                            "cannot create Events on Services: {problem}; tried again in {RETRY:?} (--events=false for none)"
                        );
                        return Instant::now() + RETRY;
                    }
                    next = next.min(Instant::now() + PAUSE);
                }
            }
        }
        next
    }

    /// When something is to be sent of this.
    fn due(&self, key: &Key, message: &str) -> Option<Instant> {
        match self.posted.get(key) {
            None => Some(Instant::now()),
            Some(posted) if posted.message != message => Some(posted.at + PAUSE),
            Some(posted) if posted.is_own => Some(posted.at + REPEAT),
            // Its node may be gone, and then the Event is, too.
            Some(posted) => Some(posted.at + REPEAT * 2),
        }
    }

    async fn send(&mut self, key: &Key, message: String) -> Result<(), String> {
        let now = Timestamp::now();
        let before = self.posted.remove(key);
        let mut posted = Posted {
            message,
            at: Instant::now(),
            first: before.as_ref().map_or(now, |posted| posted.first),
            count: before.as_ref().map_or(1, |posted| posted.count + 1),
            is_own: before.as_ref().is_some_and(|posted| posted.is_own),
        };
        // Another node's is left alone for as long as it is there and says the same.
        let is_for_us = |before: &Posted| before.is_own || before.message != posted.message;
        let is_there = match before {
            Some(before) if is_for_us(&before) => self.change(key, &posted).await?,
            _ => false,
        };
        if !is_there {
            posted.is_own = self.create(key, &posted).await? || posted.is_own;
        }
        self.posted.insert(key.clone(), posted);
        Ok(())
    }

    /// Creates the Event. Was it not there?
    async fn create(&self, (service, reason): &Key, posted: &Posted) -> Result<bool, String> {
        let Some(uid) = self.uid(service).await? else {
            // Gone meanwhile, as the notice will be.
            return Ok(false);
        };
        let time = text(Timestamp::now());
        let object = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": *service.namespace, "name": self.name(service, *reason)},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": *service.namespace,
                "name": *service.name,
                "uid": uid,
            },
            "reason": reason.text(),
            "message": posted.message,
            "type": "Warning",
            "count": posted.count,
            "firstTimestamp": text(posted.first),
            "lastTimestamp": time,
            "source": {"component": COMPONENT, "host": self.node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self.node,
        });
        let path = format!("/api/v1/namespaces/{}/events", service.namespace);
        let request = Request::post(path).header("Content-Type", "application/json");
        match self.ask(request, Some(&object)).await {
            Ok(_) => Ok(true),
            Err(Refusal::Status(StatusCode::CONFLICT)) => {
                if reason.is_of_node() {
                    // Of an earlier agent of this node.
                    self.change(&(service.clone(), *reason), posted).await?;
                    return Ok(true);
                }
                Ok(false)
            }
            // A namespace that ends takes no Events, and has no use for them.
            Err(Refusal::Status(StatusCode::NOT_FOUND)) => Ok(false),
            Err(refusal) => Err(format!("creating one on Service {service}: {refusal}")),
        }
    }

    /// Changes the Event. Is it there?
    async fn change(&self, (service, reason): &Key, posted: &Posted) -> Result<bool, String> {
        let object = json!({
            "message": posted.message,
            "count": posted.count,
            "lastTimestamp": text(Timestamp::now()),
        });
        let name = self.name(service, *reason);
        let path = format!("/api/v1/namespaces/{}/events/{name}", service.namespace);
        let request = Request::patch(path).header("Content-Type", "application/merge-patch+json");
        match self.ask(request, Some(&object)).await {
            Ok(_) => Ok(true),
            Err(Refusal::Status(StatusCode::NOT_FOUND)) => Ok(false),
            Err(refusal) => Err(format!("changing one on Service {service}: {refusal}")),
        }
    }

    /// The Service's, without which `kubectl describe` does not find the Event; `None` if it is not there. It is listed, as
    /// the agent may not get it.
    async fn uid(&self, service: &ObjectName) -> Result<Option<String>, String> {
        let path = format!(
            "/api/v1/namespaces/{}/services?limit=1&fieldSelector=metadata.name%3D{}",
            service.namespace, service.name
        );
        match self.ask(Request::get(path), None).await {
            Ok(list) => {
                let uid = &list["items"][0]["metadata"]["uid"];
                Ok(uid.as_str().map(str::to_owned))
            }
            Err(refusal) => Err(format!("looking for Service {service}: {refusal}")),
        }
    }

    /// The document that the server answers with.
    async fn ask(
        &self,
        request: http::request::Builder,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(body.into_bytes())
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        match self.client.request::<Value>(request).await {
            Ok(document) => Ok(document),
            Err(kube::Error::Api(status)) => {
                debug!("an Event: {}", status.message);
                let code = StatusCode::from_u16(status.code);
                Err(Refusal::Status(
                    code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                ))
            }
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }

    /// The Event's name says what it is about, so that one cause has one Event.
    fn name(&self, service: &ObjectName, reason: Reason) -> String {
        let node = if reason.is_of_node() { &*self.node } else { "" };
        let mut hasher = DefaultHasher::new();
        (reason.text(), node).hash(&mut hasher);
        format!("{}.{:016x}", service.name, hasher.finish())
    }

    /// How long this node waits for others that saw the same.
    fn turn(&self) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.node.hash(&mut hasher);
        SPREAD * (hasher.finish() % 1000) as u32 / 1000
    }
}

/// Why a request did not do what it was for.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The server's own word.
    #[error("{0}")]
    Status(StatusCode),
    #[error("{0}")]
    Failed(String),
}

const COMPONENT: &str = "portside";

/// The message of each Event that there should be.
fn wanted(notices: &Notices) -> BTreeMap<Key, String> {
    let mut wanted: BTreeMap<Key, String> = BTreeMap::new();
    for (service, notices) in notices.all() {
        for Notice { reason, message } in notices.into_iter().filter(|one| one.reason.is_warning())
        {
            let key = (service.clone(), reason);
            let all = wanted.entry(key).or_default();
            *all = match all.is_empty() {
                true => message,
                false => Notice::new(reason, format!("{all}; {message}")).message,
            };
        }
    }
    wanted
}

/// RFC 3339 with whole seconds, as `metav1.Time` is written.
fn text(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

/// How much may be asked.
#[derive(Debug)]
struct Bucket {
    left: u32,
    /// When it was filled up last.
    at: Instant,
}

impl Bucket {
    fn new() -> Self {
        Self {
            left: BURST,
            at: Instant::now(),
        }
    }

    /// Waits until there is something in it, and takes it.
    async fn take(&mut self) {
        let more = (self.at.elapsed().as_millis() / EVERY.as_millis()) as u32;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.at += EVERY * more;
        }
        if self.left == 0 {
            sleep_until(self.at + EVERY).await;
            self.at += EVERY;
            return;
        }
        self.left -= 1;
    }
}
