//! Answers over HTTP: is the agent healthy, is it ready, what has it counted, does this node have endpoints?
//!
//! In: what the agent's loop tells ([`Status`]), and the maps, read when somebody asks. Out: answers. Addresses, paths,
//! bodies, headers and the names of metrics are those of kube-proxy where it has them, so that probes, dashboards and cloud
//! load balancers go on working.
//!
//! The one rule: whoever asks never holds up the loop. Serving has a thread of its own, and the two share small values
//! that are locked for the time of a copy.
//!
//! | file | subject |
//! |---|---|
//! | `args` | where to listen, as the command line has it |
//! | `listen` | sockets |
//! | `http` | requests and answers on one socket |
//! | `room` | who is let in at a socket |
//! | `status` | what the loop tells |
//! | `health` | `/healthz`, `/livez`, `/readyz` |
//! | `metrics` | `/metrics`: what the loop measured, and what the maps hold |
//! | `observed` | what follows from the services for those who ask |
//! | `unserved` | what is left out for want of room |
//! | `checks` | health-check node ports |

mod args;
mod checks;
mod health;
mod http;
mod listen;
mod metrics;
mod observed;
mod room;
mod status;
mod unserved;

use std::{net::TcpListener, sync::Arc, thread};

use anyhow::{Context, Result};
use hyper::StatusCode;
use tokio::{sync::Semaphore, task};

use self::{
    http::{Answer, Asked},
    room::{Limits, Room},
};
use crate::{datapath::PinDir, memory, own_thread};

pub use self::{
    args::{Args, Bind, ListenError},
    observed::Observed,
    status::{ServiceNames, Status},
    unserved::{Unserved, summary},
};

/// At one socket.
const CONNECTIONS: Limits = Limits {
    client: 8,
    outside: 64,
    inside: 32,
};
/// At all health-check node ports together: one load balancer asks them all.
const CHECK_CONNECTIONS: Limits = Limits {
    client: 64,
    outside: 256,
    inside: 32,
};
/// Scrapes at a time: each reads all maps. Others wait.
const SCRAPES: usize = 2;

/// The sockets that are open for as long as the agent runs.
#[derive(Debug)]
pub struct Listeners {
    healthz: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    /// Opens the sockets; fails if one of them cannot be had.
    pub fn open(args: &Args) -> Result<Self, ListenError> {
        Ok(Self {
            healthz: args.healthz_bind.open("--healthz-bind")?,
            metrics: args.metrics_bind.open("--metrics-bind")?,
        })
    }

    /// Serves on a thread of its own until the process ends. `pins` is where the maps are.
    pub fn serve(self, status: Arc<Status>, pins: PinDir) -> Result<()> {
        let Self { healthz, metrics } = self;
        let thread = thread::Builder::new().name("serve".to_owned());
        own_thread::start(thread, move || async move {
            let health = on(healthz, &status, health);
            let exposition = Arc::new(metrics::Exposition::new(Arc::clone(&status), pins));
            let metrics = on(metrics, &exposition, exposed);
            let checks = checks::serve(Arc::clone(&status), Room::new(CHECK_CONNECTIONS));
            tokio::join!(health, metrics, checks);
        })
        .context("starting the thread that serves HTTP")
    }
}

/// Answers whoever comes to `listener`, if there is one.
async fn on<S, F>(listener: Option<TcpListener>, state: &Arc<S>, answer: fn(Arc<S>, Asked) -> F)
where
    S: Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let Some(listener) = listener else {
        return;
    };
    let state = Arc::clone(state);
    let room = Room::new(CONNECTIONS);
    http::serve(listener, room, move |asked| {
        answer(Arc::clone(&state), asked)
    })
    .await;
}

async fn health(status: Arc<Status>, asked: Asked) -> Answer {
    match asked.path.as_str() {
        "/healthz" => status.healthz(),
        "/livez" => status.livez(),
        "/readyz" => status.readyz(),
        _ => Answer::not_found(),
    }
}

async fn exposed(exposition: Arc<metrics::Exposition>, asked: Asked) -> Answer {
    match asked.path.as_str() {
        "/healthz" => Answer::text(StatusCode::OK, "ok"),
        // kube-proxy names its back end here.
        "/proxyMode" => Answer::text(StatusCode::OK, "ebpf"),
        // Reading the maps takes time that others should not wait for.
        "/metrics" => {
            static ROOM: Semaphore = Semaphore::const_new(SCRAPES);
            let turn = ROOM.acquire().await;
            task::spawn_blocking(move || {
                let _turn = turn;
                let answer = exposition.answer(&asked.accept);
                memory::give_back();
                answer
            })
            .await
            .unwrap_or_else(|error| {
                Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            })
        }
        _ => Answer::not_found(),
    }
}
