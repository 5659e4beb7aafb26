//! An API server: Services, EndpointSlices and the own Node, listed and then watched.
//!
//! ```text
//! API servers -> connect (which one) -> follow (list, watch, list anew) -> item (one object, valid or not)
//! -> known (what differs from before) -> keep (never the API server's own endpoints away) -> batch
//! ```
//!
//! The one rule: what cannot be learnt now stays as it was learnt last. That holds for API servers that are away, a list that is
//! not complete yet, and an object that is not valid. Only a complete list takes objects away.
//!
//! | file | subject |
//! |---|---|
//! | `connect` | where the API servers are, and which of them is asked |
//! | `follow` | one kind of object, listed and watched for as long as the agent runs |
//! | `pauses` | how long to leave a server alone after an attempt that failed |
//! | `item` | one object as it came, valid or not |
//! | `known` | what an object, or the end of a list, changes |
//! | `keep` | the service of the API servers themselves never loses its last endpoint |

mod connect;
mod events;
mod follow;
mod item;
mod keep;
mod known;
mod pauses;

use std::{sync::Arc, time::Instant};

use kube::{Api, Client, runtime::watcher};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time,
};

pub use self::{
    connect::{Options, client},
    events::publish as publish_events,
    follow::follow,
    item::{Item, Listed},
    keep::{Before, OWN},
};
use self::{
    follow::Seen,
    keep::Keeper,
    known::{Known, Nodes, Services, Slices},
};
use super::{Arrival, Batch, Heard, Source, convert::objects};
use crate::{model::Event, notices::Notices};

/// Events that may wait; a server that is ahead is held up by its connection.
const WAITING: usize = 1024;

/// The kinds that are followed, as the log names them.
const SERVICES: &str = "Services";
const SLICES: &str = "EndpointSlices";
const NODE: &str = "this node";

/// What a request is about, by its path.
fn asked_for(path: &str) -> Option<&'static str> {
    match path.rsplit('/').next()? {
        "services" => Some(SERVICES),
        "endpointslices" => Some(SLICES),
        "nodes" => Some(NODE),
        _ => None,
    }
}

/// The source behind `--kubeconfig` and `--api-servers`.
pub struct Kube {
    client: Client,
    node_name: String,
    keeper: Keeper,
    notices: Notices,
    heard: Heard,
}

impl Kube {
    /// Reads the configuration; no server is asked yet, and none need be there. `before` is what is in force now of the
    /// service of the API servers: first lists without it are not believed at once.
    pub async fn new(
        options: &Options,
        node_name: impl Into<String>,
        before: Before,
    ) -> anyhow::Result<Self> {
        let heard = Heard::default();
        Ok(Self {
            client: connect::client(options, &heard).await?,
            node_name: node_name.into(),
            keeper: Keeper::new(before),
            notices: Notices::default(),
            heard,
        })
    }

    /// What is wrong with a Service is told there, too.
    pub fn telling(self, notices: Notices) -> Self {
        Self { notices, ..self }
    }

    /// When an API server was last heard.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// The same servers, for other requests.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Source for Kube {
    async fn run(mut self, arrivals: mpsc::Sender<Arrival>) -> anyhow::Result<()> {
        let (sender, mut seen) = mpsc::channel(WAITING);
        let back = Arc::new(Notify::new());
        let mut followers = JoinSet::new();
        followers.spawn(follow(
            SERVICES,
            Api::<item::Item<objects::Service>>::all(self.client.clone()),
            // The label gives a service to another proxy. Headless services come, too, and are left out here: API servers
            // select by clusterIP only from Kubernetes 1.31 on (kubernetes #123905), and older ones refuse the whole request.
            watcher::Config::default().labels("!service.kubernetes.io/service-proxy-name"),
            (Seen::Service, Seen::Failed),
            sender.clone(),
            (Arc::clone(&back), self.heard.clone()),
        ));
        followers.spawn(follow(
            SLICES,
            Api::<item::Item<objects::EndpointSlice>>::all(self.client.clone()),
            watcher::Config::default().labels("!service.kubernetes.io/headless"),
            (Seen::Slice, Seen::Failed),
            sender.clone(),
            (Arc::clone(&back), self.heard.clone()),
        ));
        followers.spawn(follow(
            NODE,
            Api::<item::Item<objects::Node>>::all(self.client.clone()),
            watcher::Config::default().fields(&format!("metadata.name={}", self.node_name)),
            (Seen::Node, Seen::Failed),
            sender,
            (back, self.heard.clone()),
        ));
        let mut lists = Lists::default();
        lists.services.tell(self.notices.clone());
        lists.slices.tell(self.notices.clone());
        loop {
            let patience = self.keeper.waits_until();
            let first = tokio::select! {
                first = seen.recv() => first,
                () = until(patience) => {
                    let batch = self.keeper.give_up();
                    let at = Instant::now();
                    if arrivals.send(Arrival { at, batch }).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                () = arrivals.closed() => return Ok(()),
            };
            let Some((at, first)) = first else {
                anyhow::bail!("the followers of the API server ended");
            };
            let mut batch = Batch::new();
            lists.take(first, &mut batch);
            while batch.len() < WAITING
                && let Ok((_, more)) = seen.try_recv()
            {
                lists.take(more, &mut batch);
            }
            let batch = self.keeper.pass(batch);
            if !batch.is_empty() && arrivals.send(Arrival { at, batch }).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn until(time: Option<time::Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// All kinds together.
#[derive(Default)]
struct Lists {
    services: Known<Services>,
    slices: Known<Slices>,
    nodes: Known<Nodes>,
    /// The node was looked for, found or not: it says which endpoints are near.
    node_asked: bool,
    /// Ends of lists that came before.
    waiting: Vec<Event>,
}

impl Lists {
    fn take(&mut self, seen: Seen, batch: &mut Batch) {
        let from = batch.len();
        match seen {
            Seen::Service(event) => self.services.take(event, batch),
            Seen::Slice(event) => self.slices.take(event, batch),
            Seen::Node(event) => {
                self.node_asked |= matches!(event, watcher::Event::InitDone);
                self.nodes.take(event, batch);
            }
            // Without the right to see it, or with the server gone in between: the zone is not known, the rest is.
            Seen::Failed(NODE) => self.node_asked = true,
            Seen::Failed(_) => {}
        }
        if !self.node_asked {
            let ends = batch
                .extract_if(from.., |event| matches!(event, Event::Synced(_)))
                .collect::<Vec<_>>();
            self.waiting.extend(ends);
        } else if !self.waiting.is_empty() {
            batch.append(&mut self.waiting);
        }
    }
}
