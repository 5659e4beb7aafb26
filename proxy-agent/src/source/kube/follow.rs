//! One kind of object, listed and watched for as long as the agent runs.
//!
//! kube-runtime's watcher does the listing page by page, takes a watch up again where it was cut, and lists anew after a
//! 410 inside of a watch. Failed attempts come with growing, jittered pauses, without an end. The pauses are kept here and
//! not by the watcher's stream: that takes the beginning of a list, which comes before the server is asked, for a success,
//! and its pauses never grow while lists fail.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kube::{
    Api,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Error, Event, watcher},
    },
};
use tokio::{sync::mpsc, time};
use tracing::{info, warn};

use super::item::{Item, Listed};
use crate::source::convert::objects;

/// The longest pause between two attempts, where they have no other.
const LONGEST: Duration = Duration::from_secs(30);

/// What a follower saw.
pub enum Seen {
    Service(Event<Item<objects::Service>>),
    Slice(Event<Item<objects::EndpointSlice>>),
    Node(Event<Item<objects::Node>>),
    /// An attempt to list or to watch these failed; it is made again.
    Failed(&'static str),
}

/// Sends all that happens to the objects of one kind, each with the time at which it was received, until the receiver is gone. `what` names them in the log.
pub async fn follow<K>(
    what: &'static str,
    api: Api<Item<K>>,
    config: watcher::Config,
    wrap: fn(Event<Item<K>>) -> Seen,
    to: mpsc::Sender<(Instant, Seen)>,
) where
    K: Listed + Clone + std::fmt::Debug + Send + 'static,
{
    let mut trouble = Trouble { what, last: None };
    let mut pauses = DefaultBackoff::default();
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            let at = Instant::now();
            let (seen, failed) = match event {
                Ok(event) => {
                    // A list begins before the server is asked.
                    if !matches!(event, Event::Init) {
                        trouble.is_over();
                        pauses.reset();
                    }
                    (wrap(event), None)
                }
                Err(error) => {
                    let is_too_old = is_too_old(&error);
                    trouble.is(&anyhow::Error::new(error));
                    (Seen::Failed(what), Some(is_too_old))
                }
            };
            if to.send((at, seen)).await.is_err() {
                return;
            }
            if let Some(is_too_old) = failed {
                time::sleep(pauses.next().unwrap_or(LONGEST)).await;
                if is_too_old {
                    break;
                }
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use kube::client::Body;

    use super::*;

    /// How often a server is asked within ten minutes that answers everything with `answer`.
    async fn asked(status: u16, answer: &'static str) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let server = tower::service_fn(move |_: http::Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let response = http::Response::builder().status(status);
            std::future::ready(response.body(Body::from(answer.as_bytes().to_vec())))
        });
        let api = Api::<Item<objects::Service>>::all(kube::Client::new(server, "default"));
        let (sender, mut seen) = mpsc::channel(1);
        let following = follow(
            "Services",
            api,
            watcher::Config::default(),
            Seen::Service,
            sender,
        );
        let all_seen = async { while seen.recv().await.is_some() {} };
        let both = async { tokio::join!(following, all_seen) };
        let end = time::timeout(Duration::from_secs(600), both).await;
        assert!(end.is_err(), "it gave up");
        count.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_is_asked_ever_more_rarely() {
        // With pauses of up to 30 s, doubled by no more than the jitter, and at most five shorter ones before.
        let count = asked(503, "").await;
        assert!((10..=26).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_behind_a_good_list_is_asked_for_ever_more_rarely() {
        let list = r#"{"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}"#;
        // What is right for a list is nonsense for a watch.
        let count = asked(200, list).await;
        assert!((10..=40).contains(&count), "{count}");
    }
}
