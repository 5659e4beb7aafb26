//! An API server and a controller that follows it, without any node.

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, bail, ensure};
use api_server::ApiServer;
use api_server::client::Client;
use api_server::resource::Resource;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::agent::{Agent, binary};
use testbed::patience::eventually;
use testbed::runner::{no_agent, row};

/// Where the pools are, as MetalLB has them.
pub const POOLS: &str = "metallb-system";
/// The namespace of most services; the API server made it.
pub const DEFAULT: &str = "default";

/// Short, as a row that kills a leader has to wait for the next one.
const LEASE_SECONDS: &str = "2";

// Dropped in this order: controllers before what they follow.
pub struct Rig {
    controllers: Mutex<Vec<Agent>>,
    pub server: ApiServer,
}

/// What a row asks for: pools by name, each with its spec.
pub type Pools<'a> = &'a [(&'a str, Value)];

impl Rig {
    /// Without a controller.
    pub fn new() -> Result<Self> {
        Ok(Self {
            controllers: Mutex::default(),
            server: ApiServer::serve(TcpListener::bind("127.0.0.1:0")?)?,
        })
    }

    /// With these pools and a controller.
    pub fn with(pools: Pools) -> Result<Self> {
        let rig = Self::new()?;
        rig.pools(pools)?;
        rig.start(&[])?;
        Ok(rig)
    }

    pub fn start(&self, flags: &[&str]) -> Result<()> {
        let mut command = Command::new(binary().context("the agent's path is not set")?);
        let url = self.server.url();
        command
            .args([
                "controller",
                "--api-servers",
                &url,
                "--pool-namespace",
                POOLS,
            ])
            .args(["--lease-namespace", POOLS, "--lease-seconds", LEASE_SECONDS])
            .args(flags);
        let name = format!("controller {}", self.controllers().len());
        let controller = Agent::of(command, &name)?;
        self.controllers().push(controller);
        Ok(())
    }

    pub fn controllers(&self) -> MutexGuard<'_, Vec<Agent>> {
        self.controllers
            .lock()
            .expect("nobody panics while holding the controllers")
    }

    pub fn api(&self) -> Client<'static> {
        Client::here(self.server.address())
    }

    pub fn logs(&self) -> String {
        self.controllers().iter().map(Agent::log).collect()
    }

    /// Waits until one of the controllers has said this.
    pub fn await_said(&self, words: &str) -> Result<()> {
        eventually(&format!("a controller says {words:?}"), || {
            let said = self
                .controllers()
                .iter()
                .any(|one| one.lines().iter().any(|line| line.contains(words)));
            ensure!(said, "it does not");
            Ok(())
        })
    }

    /// Creates or replaces pools, and leaves others as they are.
    pub fn pools(&self, pools: Pools) -> Result<()> {
        for (name, spec) in pools {
            self.api().apply(&json!({
                "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                "metadata": {"name": name, "namespace": POOLS}, "spec": spec,
            }))?;
        }
        Ok(())
    }

    pub fn delete_pool(&self, name: &str) -> Result<()> {
        self.delete(Resource::IpAddressPools, POOLS, name)
    }

    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) -> Result<()> {
        let path = format!("{}/{name}", resource.path(namespace));
        let (code, answer) = self.api().call("DELETE", &path, &Value::Null)?;
        ensure!(code == 200, "{answer}");
        Ok(())
    }

    /// A namespace with labels.
    pub fn namespace(&self, name: &str, labels: &Value) -> Result<()> {
        self.api()
            .apply(&json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
    }

    /// A service of type LoadBalancer, with a change merged in.
    pub fn service(&self, name: &str, change: Value) -> Result<()> {
        self.service_in(DEFAULT, name, change)
    }

    pub fn service_in(&self, namespace: &str, name: &str, change: Value) -> Result<()> {
        let mut object = json!({
            "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]},
        });
        merge(&mut object, change);
        self.api().create(&object)
    }

    pub fn patch(&self, service: &str, change: &Value) -> Result<()> {
        self.api().patch(Resource::Services, service, change)
    }

    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Result<Value> {
        let path = format!("{}/{name}", resource.path(namespace));
        let (code, object) = self.api().call("GET", &path, &Value::Null)?;
        ensure!(code == 200, "{object}");
        Ok(object)
    }

    /// The addresses that a service has.
    pub fn has(&self, service: &str) -> Result<Vec<String>> {
        self.has_in(DEFAULT, service)
    }

    pub fn has_in(&self, namespace: &str, service: &str) -> Result<Vec<String>> {
        let object = self.get(Resource::Services, namespace, service)?;
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
        let all = ingress.into_iter().flatten();
        Ok(all
            .filter_map(|one| one["ip"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Waits until a service has exactly these.
    pub fn await_has(&self, service: &str, wanted: &[&str]) -> Result<()> {
        self.await_has_in(DEFAULT, service, wanted)
    }

    pub fn await_has_in(&self, namespace: &str, service: &str, wanted: &[&str]) -> Result<()> {
        eventually(&format!("{service} has {wanted:?}"), || {
            let has = self.has_in(namespace, service)?;
            ensure!(has == wanted, "it has {has:?}");
            Ok(())
        })
    }

    /// Waits until a service has an Event of this reason that says this.
    pub fn await_event(&self, service: &str, reason: &str, words: &str) -> Result<Value> {
        eventually(
            &format!("an Event {reason} of {service} with {words:?}"),
            || {
                let all = self.events()?;
                let about = all
                    .iter()
                    .filter(|one| one["regarding"]["name"] == service && one["reason"] == reason);
                let notes: Vec<_> = about.clone().map(|one| one["note"].to_string()).collect();
                let mut about = about.filter(|one| {
                    one["note"]
                        .as_str()
                        .is_some_and(|note| note.contains(words))
                });
                match about.next() {
                    Some(event) => Ok(event.clone()),
                    None => bail!("there is {notes:?}"),
                }
            },
        )
    }

    pub fn events(&self) -> Result<Vec<Value>> {
        let (_, list) = self
            .api()
            .call("GET", "/apis/events.k8s.io/v1/events", &Value::Null)?;
        Ok(list["items"].as_array().context("no items")?.clone())
    }

    /// Waits until a service is refused an address: that it has none is no sign that it was looked at.
    pub fn await_refused(&self, service: &str, words: &str) -> Result<()> {
        self.await_event(service, "AllocationFailed", words)?;
        self.await_has(service, &[])
    }

    /// Waits until what came before is decided: a service that comes now is served or refused.
    pub fn await_round(&self, mark: &str) -> Result<()> {
        self.service(
            mark,
            json!({"metadata": {"annotations": {"metallb.io/address-pool": "no-such-pool"}}}),
        )?;
        self.await_refused(mark, "there is no IPAddressPool no-such-pool")
    }
}

/// Merges a change into an object.
pub fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, change) in change {
                merge(object.entry(key).or_insert(Value::Null), change);
            }
        }
        (object, change) => *object = change,
    }
}

/// A pool of these addresses.
pub fn pool(addresses: &[&str]) -> Value {
    json!({"addresses": addresses})
}

/// A row on a rig with these pools; its failure shows what the controllers said.
pub fn pool_row(
    name: &str,
    pools: Vec<(&'static str, Value)>,
    test: impl Fn(&Rig) -> Result<()> + Send + 'static,
) -> Trial {
    row(format!("balancer: {name}"), no_agent(), move || {
        let rig = Rig::with(&pools)?;
        test(&rig).map_err(|error| error.context(rig.logs()))
    })
}
