//! A small Kubernetes API server: real HTTP with real list and watch semantics, and faults on demand ([`faults`]).
//!
//! It serves the kinds of objects in [`resource`] over plain HTTP, well enough for clients such as kubectl.
//! There is no authentication and no admission, and no field of an object is checked that is not in its way.

pub mod aggregation;
pub mod asked;
pub mod client;
mod defaults;
mod discovery;
pub mod faults;
mod http;
mod list;
mod object;
pub mod objects;
mod openapi;
mod patch;
mod protobuf;
mod query;
pub mod resource;
mod scale;
mod selector;
mod status;
mod store;
pub mod table;
mod watch;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch as latest};

use self::aggregation::{Aggregator, Dial};
use self::asked::Asked;
use self::faults::{Active, Fault};
use self::objects::Objects;
use self::resource::Resource;
use self::store::Store;

struct Shared {
    store: Store,
    faults: Mutex<Active>,
    /// Rises when faults are healed.
    healed: latest::Sender<u64>,
    asked: Mutex<BTreeSet<Asked>>,
    aggregator: Aggregator,
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Active> {
        self.faults
            .lock()
            .expect("nobody panics while holding the faults")
    }

    fn asked(&self) -> MutexGuard<'_, BTreeSet<Asked>> {
        self.asked
            .lock()
            .expect("nobody panics while holding what was asked")
    }
}

/// A server with its store. Dropping it ends every connection.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

/// What serves. Dropping it closes the listener and every connection, as the end of a process does.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Serves on a listener, which keeps the network namespace that it was made in.
    pub fn serve(listener: TcpListener) -> Result<Self> {
        let shared = Shared {
            store: Store::new(),
            faults: Mutex::default(),
            healed: latest::Sender::default(),
            asked: Mutex::default(),
            aggregator: Aggregator::default(),
        };
        Self::serve_shared(listener, Arc::new(shared))
    }

    /// Another server of the same objects, with the same faults.
    pub fn serve_beside(&self, listener: TcpListener) -> Result<Self> {
        Self::serve_shared(listener, Arc::clone(&self.shared))
    }

    fn serve_shared(listener: TcpListener, shared: Arc<Shared>) -> Result<Self> {
        let address = listener.local_addr()?;
        let running = Running::start(listener, Arc::clone(&shared))?;
        Ok(Self {
            address,
            shared,
            running: Mutex::new(Some(running)),
        })
    }

    /// Ends as a killed server does: nobody listens, and every connection is cut. What it stores stays, and so do its faults.
    pub fn stop(&self) {
        drop(self.running().take());
    }

    /// Serves again what it has stored, its versions going on. The listener has to be at the address of the first.
    pub fn resume(&self, listener: TcpListener) -> Result<()> {
        let address = listener.local_addr()?;
        ensure!(
            address == self.address,
            "the API server was at {}, not at {address}",
            self.address
        );
        let mut running = self.running();
        ensure!(running.is_none(), "the API server runs already");
        *running = Some(Running::start(listener, Arc::clone(&self.shared))?);
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running
            .lock()
            .expect("nobody panics while starting or stopping the server")
    }

    /// How many requests are held up.
    pub fn held(&self) -> usize {
        self.shared.faults().held()
    }

    /// All sorts of requests that came so far.
    pub fn asked(&self) -> BTreeSet<Asked> {
        self.shared.asked().clone()
    }

    /// Its objects, for controllers in this process.
    pub fn objects(&self) -> Objects {
        Objects::new(Arc::clone(&self.shared))
    }

    /// From now on requests for APIServices are passed on to their Services, by connections that `dial` makes.
    pub fn dial_by(&self, dial: Arc<Dial>) {
        self.shared.aggregator.dial_by(dial);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig by which clients find it; it wants no credentials.
    pub fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
            "clusters": [{"name": "testbed", "cluster": {"server": self.url()}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "nobody"}}],
        })
    }

    /// Stores an object as it is: nothing is defaulted and nothing checked.
    pub fn put(&self, resource: Resource, namespace: &str, name: &str, object: Value) {
        let key = (namespace.to_owned(), name.to_owned());
        self.shared.store.put_unchecked(resource, key, object);
    }

    /// Runs a script of faults; nothing of it if a line cannot be read.
    pub fn script(&self, script: &str) -> Result<()> {
        for fault in faults::parse(script)? {
            match fault {
                Fault::Gone => self.shared.store.compact(),
                Fault::Malformed(resource, namespace, name) => {
                    let object =
                        json!({"metadata": {}, "spec": "malformed", "endpoints": "malformed"});
                    self.shared
                        .store
                        .put_unchecked(resource, (namespace, name), object);
                }
                lasting => {
                    let heals = lasting == Fault::Heal;
                    self.shared.faults().add(lasting);
                    if heals {
                        self.shared.healed.send_modify(|times| *times += 1);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Running {
    fn start(listener: TcpListener, shared: Arc<Shared>) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the API server")?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let serving = http::serve(listener, shared);
        let thread = thread::Builder::new()
            .name("api-server".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serving => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
