//! Requests over new connections, at a pace, while a cluster changes: what came of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::netns::Netns;
use testbed::sockets::http;

/// Loops that ask, one for each way. Dropping it ends them.
pub struct Requests {
    state: Arc<State>,
    loops: Vec<JoinHandle<()>>,
}

struct State {
    is_over: AtomicBool,
    pause: AtomicU64,
    tally: Mutex<Tally>,
}

/// What came of a number of requests.
#[derive(Default, Debug)]
pub struct Tally {
    pub requests: u64,
    pub failures: Vec<String>,
    pub by_pod: BTreeMap<String, u64>,
}

impl Requests {
    /// Asks from each of these namespaces, with `pause` between one answer and the next request.
    pub fn start<'a>(
        ways: impl IntoIterator<Item = (&'a Netns, SocketAddr)>,
        pause: Duration,
    ) -> Self {
        let state = Arc::new(State {
            is_over: AtomicBool::new(false),
            pause: AtomicU64::new(millis(pause)),
            tally: Mutex::default(),
        });
        let loops = ways.into_iter().map(|(from, target)| {
            let (state, entered) = (Arc::clone(&state), from.enter());
            thread::spawn(move || {
                entered();
                while !state.is_over.load(Ordering::Relaxed) {
                    let answer = http::get_here(target);
                    state
                        .tally
                        .lock()
                        .expect("no loop panics")
                        .add(target, answer);
                    thread::sleep(Duration::from_millis(state.pause.load(Ordering::Relaxed)));
                }
            })
        });
        Self {
            loops: loops.collect(),
            state,
        }
    }

    /// From now on with another pause.
    pub fn pace(&self, pause: Duration) {
        self.state.pause.store(millis(pause), Ordering::Relaxed);
    }

    /// How many requests each pod has answered so far.
    pub fn pods(&self) -> BTreeMap<String, u64> {
        self.state
            .tally
            .lock()
            .expect("no loop panics")
            .by_pod
            .clone()
    }

    /// Ends them; an error where a request failed, or none was made.
    pub fn stop(mut self) -> Result<Tally> {
        self.state.is_over.store(true, Ordering::Relaxed);
        for one in self.loops.drain(..) {
            one.join().expect("no loop panics");
        }
        let tally = std::mem::take(&mut *self.state.tally.lock().expect("no loop panics"));
        ensure!(tally.requests > 0, "no request was made");
        ensure!(
            tally.failures.is_empty(),
            "requests failed: {:#?}",
            tally.failures
        );
        Ok(tally)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        for one in self.loops.drain(..) {
            // A panic has been told by its thread.
            let _ = one.join();
        }
    }
}

impl Tally {
    fn add(&mut self, target: SocketAddr, answer: Result<String>) {
        self.requests += 1;
        match answer {
            Ok(body) => {
                let pod = body.split(' ').next().unwrap_or_default();
                *self.by_pod.entry(pod.to_owned()).or_default() += 1;
            }
            Err(error) => self.failures.push(format!("{target}: {error:#}")),
        }
    }
}

fn millis(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}
