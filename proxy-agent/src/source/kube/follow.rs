//! One kind of object, listed and watched for as long as the agent runs.
//!
//! kube-runtime's watcher does the listing page by page, takes a watch up again where it was cut, and lists anew after a
//! 410 inside of a watch. Failed attempts come with growing, jittered pauses, without an end.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, DefaultBackoff, Error, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time};
use tracing::{info, warn};

use super::item::Item;

/// From a watch that the server refuses as too old until the list is read anew.
const AGAIN: Duration = Duration::from_secs(1);

/// What a follower saw.
pub enum Seen {
    Service(Event<Item<core::Service>>),
    Slice(Event<Item<discovery::EndpointSlice>>),
    Node(Event<Item<core::Node>>),
    /// An attempt to list or to watch these failed; it is made again.
    Failed(&'static str),
}

/// Sends all that happens to the objects of one kind, until the receiver is gone. `what` names them in the log.
pub async fn follow<K>(
    what: &'static str,
    api: Api<Item<K>>,
    config: watcher::Config,
    wrap: fn(Event<Item<K>>) -> Seen,
    to: mpsc::Sender<Seen>,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
{
    let mut trouble = Trouble { what, last: None };
    loop {
        let events = watcher(api.clone(), config.clone()).backoff(DefaultBackoff::default());
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let (seen, is_too_old) = match event {
                Ok(event) => {
                    // A list begins before the server is asked.
                    if !matches!(event, Event::Init) {
                        trouble.is_over();
                    }
                    (wrap(event), false)
                }
                Err(error) => {
                    let is_too_old = is_too_old(&error);
                    trouble.is(&anyhow::Error::new(error));
                    (Seen::Failed(what), is_too_old)
                }
            };
            if to.send(seen).await.is_err() {
                return;
            }
            if is_too_old {
                time::sleep(AGAIN).await;
                break;
            }
        }
    }
}

/// Does the server refuse to begin a watch at the version that it would go on from? The watcher would ask for the same
/// one for ever.
fn is_too_old(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Says once what is wrong, and once that it is over.
struct Trouble {
    what: &'static str,
    last: Option<String>,
}

impl Trouble {
    fn is(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.last.as_ref() != Some(&text) {
            warn!(
                "cannot follow {}, the datapath stays as it is: {text}",
                self.what
            );
            self.last = Some(text);
        }
    }

    fn is_over(&mut self) {
        if self.last.take().is_some() {
            info!("following {} again", self.what);
        }
    }
}
