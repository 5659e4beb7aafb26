//! What stands around Services in a cluster, as small as it comes: controllers of Deployments and ReplicaSets, a scheduler, a
//! kubelet for each node, the endpoints of Services, and an autoscaler ([`autoscaler`]).
//!
//! ```text
//!  kubectl ─► API server ◄─ Deployments ─► ReplicaSets ─► Pods ─► EndpointSlices ─► Portside's agents
//!                       ▲                                  │
//!                       └── autoscaler: replicas           └─ kubelet: a namespace with a web server
//! ```
//!
//! Each looks at all objects after each change, and writes what is missing: nothing depends on having seen a change.

pub mod autoscaler;
pub mod cluster;
pub mod deployment;
mod endpoints;
mod garbage;
mod kubelet;
pub mod metrics_api;
mod object;
pub mod quantity;
mod replica_set;
pub mod requests;
pub mod scene;
mod scheduler;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use api_server::objects::Objects;
use testbed::topology::Topology;

use self::kubelet::Kubelet;
pub use self::kubelet::STOPS_AFTER;

/// How soon a change is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// All controllers but the autoscaler, on a thread. Dropping it ends them, and every pod that they run.
pub struct Controllers {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Controllers {
    /// Runs them for the objects of an API server, with pods on the nodes of `topology`.
    pub fn start(objects: Objects, topology: Arc<Topology>) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let thread = thread::Builder::new()
            .name("controllers".into())
            .spawn(move || {
                let mut kubelet = Kubelet::new(topology);
                let mut seen = None;
                while !told.load(Ordering::Relaxed) {
                    let version = objects.version();
                    if seen != Some(version) || kubelet.waits() {
                        seen = Some(version);
                        if let Err(error) = reconcile(&objects, &mut kubelet) {
                            // Another one wrote meanwhile: what there is now is looked at next.
                            eprintln!("controllers: {error:#}");
                            seen = None;
                        }
                    }
                    thread::sleep(PAUSE);
                }
            })?;
        Ok(Self {
            stopped,
            thread: Some(thread),
        })
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn reconcile(objects: &Objects, kubelet: &mut Kubelet) -> Result<()> {
    garbage::collect(objects)?;
    deployment::reconcile(objects)?;
    replica_set::reconcile(objects)?;
    scheduler::reconcile(objects, kubelet.nodes())?;
    kubelet.reconcile(objects)?;
    endpoints::reconcile(objects)
}
