//! A small Kubernetes API server: real HTTP with real list and watch semantics, and faults on demand ([`faults`]).
//!
//! It serves Services, EndpointSlices, Nodes and Namespaces over plain HTTP, well enough for clients such as kubectl.
//! There is no authentication, no admission and no OpenAPI document: `kubectl apply` needs `--validate=false`.

mod defaults;
mod discovery;
pub mod faults;
mod http;
mod list;
mod patch;
mod query;
pub mod resource;
mod selector;
mod status;
mod store;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::sync::oneshot;

use self::faults::{Active, Fault};
use self::store::Store;

struct Shared {
    store: Store,
    faults: Mutex<Active>,
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Active> {
        self.faults
            .lock()
            .expect("nobody panics while holding the faults")
    }
}

/// A running server. Dropping it ends every connection.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Serves on a listener, which keeps the network namespace that it was made in.
    pub fn serve(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the API server")?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let shared = Arc::new(Shared {
            store: Store::new(),
            faults: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = http::serve(listener, Arc::clone(&shared));
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
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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
                lasting => self.shared.faults().add(lasting),
            }
        }
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
