//! One kind of object, listed and watched for as long as the agent runs.
//!
//! kube-runtime's watcher does the listing page by page, takes a watch up again where it was cut, and lists anew after a
//! 410 inside of a watch. Failed attempts come with growing, jittered pauses, without an end ([`super::pauses`]). The pauses are kept
//! here and not by the watcher's stream: that takes the beginning of a list, which comes before the server is asked, for a success, and
//! its pauses never grow while lists fail.

use std::{
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kube::{
    Api,
    runtime::watcher::{self, Error, Event, watcher},
};
use tokio::{
    sync::{Notify, mpsc},
    time,
};
use tracing::{debug, info, warn};

use super::{
    connect::READ,
    item::{Item, Listed},
    pauses::{Failure, Pauses},
};
use crate::source::{Heard, convert::objects};

/// How long a watch may last. It ends in order then and is taken up where it was: a server has no word for a watch on which nothing
/// happens (it sends bookmarks only when there is a later version), and one that is read for longer than [`READ`] without a word is
/// given up. Shorter by up to a third, so that not all watches end together.
const WATCH: Duration = Duration::from_secs(90);
const _: () = assert!(WATCH.as_secs() < READ.as_secs());

/// What a follower saw.
pub enum Seen {
    Service(Event<Item<objects::Service>>),
    Slice(Event<Item<objects::EndpointSlice>>),
    Node(Event<Item<objects::Node>>),
    /// An attempt to list or to watch these failed; it is made again.
    Failed(&'static str),
}

/// What is made of an event, and of an attempt that failed.
pub type Wraps<K, S> = (fn(Event<Item<K>>) -> S, fn(&'static str) -> S);

/// Sends all that happens to the objects of one kind, each with the time at which it was received, until the receiver is gone. `what` names
/// them in the log; an attempt that fails is sent, too, as `failed` makes it.
/// `back` tells all followers of a server that it answers again; `heard` is told what the log is told.
pub async fn follow<K, S>(
    what: &'static str,
    api: Api<Item<K>>,
    config: watcher::Config,
    (wrap, failed): Wraps<K, S>,
    to: mpsc::Sender<(Instant, S)>,
    (back, heard): (Arc<Notify>, Heard),
) where
    K: Listed + Clone + std::fmt::Debug + Send + 'static,
    S: Send,
{
    let config = config.timeout(watch_seconds());
    let mut trouble = Trouble {
        what,
        last: None,
        heard,
    };
    let mut pauses = Pauses::default();
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            let at = Instant::now();
            let (seen, failure) = match event {
                Ok(event) => {
                    // A list begins before the server is asked.
                    if !matches!(event, Event::Init) {
                        if trouble.is_over() {
                            back.notify_waiters();
                        }
                        pauses.reset();
                    }
                    (wrap(event), None)
                }
                Err(error) => {
                    let failure = Failure::of(&error);
                    let failure = (pauses.after(failure), is_too_old(&error));
                    if failure.0.is_zero() {
                        debug!("the history of {what} is gone: listing anew");
                    } else {
                        trouble.is(&anyhow::Error::new(error));
                    }
                    (failed(what), Some(failure))
                }
            };
            if to.send((at, seen)).await.is_err() {
                return;
            }
            if let Some((pause, is_too_old)) = failure {
                // Another follower may find out first that the server is back.
                let _ = time::timeout(pause, back.notified()).await;
                if is_too_old {
                    break;
                }
            }
        }
    }
}

fn watch_seconds() -> u32 {
    let most = WATCH.as_secs() as u32;
    most - RandomState::new().hash_one(()) as u32 % (most / 3)
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
    heard: Heard,
}

impl Trouble {
    fn is(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.last.as_ref() != Some(&text) {
            warn!(
                "cannot follow {}, the datapath stays as it is: {text}",
                self.what
            );
            self.heard.trouble(self.what, text.as_str());
            self.last = Some(text);
        }
    }

    /// Was there any?
    fn is_over(&mut self) -> bool {
        let was = self.last.take().is_some();
        if was {
            self.heard.is_over(self.what);
            info!("following {} again", self.what);
        }
        was
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

    use futures_util::stream;
    use http::{Request, Response};
    use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
    use hyper::body::{Bytes, Frame};
    use kube::client::Body;

    use super::*;

    const LIST: &str = r#"{"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}"#;
    const GONE: &str = r#"{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}}"#;
    /// What a server has no answer for.
    const NONE: u16 = 0;

    /// What a server does with a request.
    enum Does {
        /// Answers.
        Says(u16, &'static str),
        /// Begins a watch on which nothing happens, and ends it in order, after the time that it was asked for or before.
        WatchesInSilence(Duration),
    }

    /// Requests as they came: when, after the beginning, and what was asked for.
    type Asked = Vec<(Duration, String)>;

    /// Follows Services at a server for a while; gives the requests and the number of failures.
    async fn followed(
        length: Duration,
        does: impl Fn(Duration, &str) -> Does + Send + Sync + 'static,
    ) -> (Asked, usize) {
        let began = time::Instant::now();
        let asked = Arc::new(Mutex::new(Asked::new()));
        let noted = Arc::clone(&asked);
        let does = Arc::new(does);
        let server = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let at = began.elapsed();
            noted.lock().unwrap().push((at, query.clone()));
            let does = does(at, &query);
            async move {
                let (status, body) = match does {
                    Does::Says(NONE, _) => return Err(std::io::Error::other("no answer")),
                    Does::Says(status, text) => {
                        let text = Full::new(Bytes::from_static(text.as_bytes()));
                        (status, UnsyncBoxBody::new(text))
                    }
                    Does::WatchesInSilence(most) => {
                        let length = Duration::from_secs(seconds(&query)).min(most);
                        let end = async move {
                            time::sleep(length).await;
                            Ok::<_, Infallible>(Frame::data(Bytes::new()))
                        };
                        (200, UnsyncBoxBody::new(StreamBody::new(stream::once(end))))
                    }
                };
                Ok(Response::builder().status(status).body(body).unwrap())
            }
        });
        let api = Api::<Item<objects::Service>>::all(kube::Client::new(server, "default"));
        let (sender, mut seen) = mpsc::channel(1);
        let following = follow(
            "Services",
            api,
            watcher::Config::default(),
            (Seen::Service, Seen::Failed),
            sender,
            Default::default(),
        );
        let mut failures = 0;
        let all_seen = async {
            while let Some((_, seen)) = seen.recv().await {
                failures += usize::from(matches!(seen, Seen::Failed(_)));
            }
        };
        let both = async { tokio::join!(following, all_seen) };
        let end = time::timeout(length, both).await;
        assert!(end.is_err(), "it gave up");
        let asked = asked.lock().unwrap().clone();
        (asked, failures)
    }

    fn is_watch(query: &str) -> bool {
        query.contains("watch=true")
    }

    /// What a request gives the watch.
    fn seconds(query: &str) -> u64 {
        let mut fields = query.split('&');
        let seconds = fields.find_map(|field| field.strip_prefix("timeoutSeconds="));
        seconds.expect("it asks for a time").parse().unwrap()
    }

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_is_asked_ever_more_rarely() {
        // With pauses of up to 30 s, no less than half of that, and six shorter ones before.
        let (asked, _) = followed(TEN_MINUTES, |_, _| Does::Says(403, "")).await;
        assert!((20..=46).contains(&asked.len()), "{}", asked.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_asked_every_few_seconds() {
        for status in [NONE, 503] {
            let (asked, _) = followed(TEN_MINUTES, move |_, _| Does::Says(status, "")).await;
            assert!((150..=310).contains(&asked.len()), "{}", asked.len());
            let times = asked.windows(2).map(|two| two[1].0 - two[0].0);
            let longest = times.max().unwrap();
            assert!(longest <= Duration::from_secs(4), "{longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_behind_a_good_list_is_asked_for_every_few_seconds() {
        // What is right for a list is nonsense for a watch.
        let (asked, _) = followed(TEN_MINUTES, |_, _| Does::Says(200, LIST)).await;
        assert!((150..=310).contains(&asked.len()), "{}", asked.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_on_which_nothing_happens_ends_in_order_before_it_is_given_up() {
        let (asked, failures) = followed(TEN_MINUTES, |_, query| match is_watch(query) {
            true => Does::WatchesInSilence(Duration::MAX),
            false => Does::Says(200, LIST),
        })
        .await;
        assert_eq!(failures, 0);
        let watches: Vec<_> = asked.iter().filter(|(_, query)| is_watch(query)).collect();
        assert!(watches.len() >= 7, "{asked:?}");
        assert_eq!(asked.len(), watches.len() + 1, "one list");
        for (_, query) in watches {
            assert!(seconds(query) < READ.as_secs(), "{query}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_server_s_return_a_history_that_is_gone_costs_no_time() {
        const CUT: Duration = Duration::from_secs(5);
        let back = Duration::from_secs(300);
        let gone_once = Mutex::new(true);
        let (asked, _) = followed(TEN_MINUTES, move |at, query| {
            if (CUT..back).contains(&at) {
                return Does::Says(NONE, "");
            }
            match is_watch(query) {
                false => Does::Says(200, LIST),
                true if at < CUT => Does::WatchesInSilence(CUT),
                true if std::mem::take(&mut *gone_once.lock().unwrap()) => Does::Says(200, GONE),
                true => Does::WatchesInSilence(Duration::MAX),
            }
        })
        .await;
        let mut since = asked.iter().filter(|(at, _)| *at >= back);
        let (first, query) = since.next().unwrap();
        assert!(is_watch(query), "it goes on from where it was");
        assert!(*first - back <= Duration::from_secs(4), "{first:?}");
        let (list, query) = since.next().unwrap();
        assert!(!is_watch(query));
        assert!(
            *list - *first < Duration::from_millis(10),
            "{first:?}, {list:?}"
        );
    }
}
