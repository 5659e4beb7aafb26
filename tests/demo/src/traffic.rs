//! Requests without a pause, from outside and from a pod, while the scene changes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::manifest;
use super::scene::Scene;
use testbed::address::Family;
use testbed::netns::Netns;
use testbed::one_cpu::OneCpu;
use testbed::sockets::http;

/// What came of a number of requests.
#[derive(Default)]
pub(super) struct Tally {
    pub requests: usize,
    pub failures: Vec<String>,
    by_pod: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, answer: anyhow::Result<String>) {
        self.requests += 1;
        match answer {
            Ok(body) => {
                let pod = body.split(' ').next().unwrap_or_default();
                *self.by_pod.entry(pod.to_owned()).or_default() += 1;
            }
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn absorb(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures.extend(other.failures);
        for (pod, requests) in other.by_pod {
            *self.by_pod.entry(pod).or_default() += requests;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} failed;",
            self.requests,
            self.failures.len()
        )?;
        self.by_pod
            .iter()
            .try_for_each(|(pod, requests)| write!(f, " {pod} {requests}"))
    }
}

pub(super) struct Traffic {
    state: Arc<State>,
    loops: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    recent: Mutex<Tally>,
    total: Mutex<Tally>,
}

impl Traffic {
    /// Starts a loop for each client, way and family.
    pub fn start(scene: &Scene) -> Self {
        let state = Arc::new(State::default());
        let node = &scene.topology.nodes[0].host;
        let loops = Family::BOTH
            .into_iter()
            .flat_map(|family| {
                [
                    (
                        &scene.topology.client().netns,
                        SocketAddr::new(node.ip.of(family), manifest::NODE_PORT),
                    ),
                    (
                        &scene.visitor.netns,
                        SocketAddr::new(scene.cluster_ip.of(family), manifest::PORT),
                    ),
                ]
            })
            .map(|(from, target)| ask_on(Arc::clone(&state), from, target))
            .collect();
        Self { state, loops }
    }

    /// What came since the last call.
    pub fn since_last(&self) -> String {
        let recent = std::mem::take(&mut *self.state.recent.lock().expect("no loop panics"));
        let text = recent.to_string();
        self.state
            .total
            .lock()
            .expect("no loop panics")
            .absorb(recent);
        text
    }

    /// Ends the loops; gives what came in all.
    pub fn stop(self) -> Tally {
        self.state.stopped.store(true, Ordering::Relaxed);
        for ask in self.loops {
            ask.join().expect("no loop panics");
        }
        let mut total = std::mem::take(&mut *self.state.total.lock().expect("no loop panics"));
        total.absorb(std::mem::take(
            &mut *self.state.recent.lock().expect("no loop panics"),
        ));
        total
    }
}

fn ask_on(state: Arc<State>, from: &Netns, target: SocketAddr) -> JoinHandle<()> {
    // The thread enters the namespace for good; it ends before the namespace does.
    let entered = from.enter();
    thread::spawn(move || {
        entered();
        let _on = OneCpu::stay().expect("a thread may give up a CPU that it has");
        while !state.stopped.load(Ordering::Relaxed) {
            let answer = http::get_here(target);
            state.recent.lock().expect("no loop panics").add(answer);
        }
    })
}
