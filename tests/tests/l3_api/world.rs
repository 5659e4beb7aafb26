//! A cluster whose agents follow an API server. The server is beside the nodes' router, as a cluster's may be outside of its
//! nodes.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::ApiServer;
use api_server::client::Client;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::address::{self, Family};
use testbed::agent::{Source, Uplink};
use testbed::answer::Answer;
use testbed::ask::dial;
use testbed::cluster::{Cluster, Vip};
use testbed::manifests::{Endpoints, Service};
use testbed::patience::{eventually, eventually_within, patient};
use testbed::runner::{Shared, cluster_row, no_agent, row};
use testbed::sockets::Protocol;
use testbed::topology::{Plan, Pod};

const API_PORT: u16 = 6443;

/// A change may have to wait for a pause between two attempts, which grows to 4 s, and for a busy machine.
pub const ARRIVES_WITHIN: Duration = Duration::from_secs(25);

/// The variable by which slow rows are asked for.
const SLOW_ROWS: &str = "PORTSIDE_SLOW_ROWS";
const NOT_ASKED_FOR: &str = "takes minutes, PORTSIDE_SLOW_ROWS=1 runs it";

/// From one look to the next; a lost datagram is no answer for longer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

// Dropped in this order: the agents end before what they follow.
pub struct World {
    pub cluster: Cluster,
    pub server: ApiServer,
}

impl World {
    /// Everything but the agents.
    pub fn build(nodes: u8) -> Result<Self> {
        let plan = Plan {
            nodes,
            ..Plan::default()
        };
        let mut cluster = Cluster::build(&plan, Uplink::Xdp)?;
        let server = ApiServer::serve(listen(&cluster, API_PORT)?)?;
        let run = &cluster.topology.run;
        let kubeconfig = run.directory("api")?.join("kubeconfig");
        fs::write(&kubeconfig, server.kubeconfig().to_string())
            .with_context(|| format!("writing {}", kubeconfig.display()))?;
        cluster.follow(Source::Kubeconfig(kubeconfig));
        Ok(Self { cluster, server })
    }

    /// The same with agents that are ready.
    pub fn start(nodes: u8) -> Result<Self> {
        let world = Self::build(nodes)?;
        world.cluster.start_agents()?;
        Ok(world)
    }

    pub fn api(&self) -> Client<'_> {
        self.api_of(&self.server)
    }

    /// Runs `work` in the server's namespace, with a client that need not enter it for each request.
    pub fn beside_server<T: Send>(&self, work: impl FnOnce(Client) -> T + Send) -> T {
        let server = self.server.address();
        let router = &self.cluster.topology.router.netns;
        router.run(|| work(Client::here(server)))
    }

    /// Lets a stopped server serve again.
    pub fn resume_server(&self) -> Result<()> {
        self.server.resume(listen(&self.cluster, API_PORT)?)
    }

    /// Another server of the same objects, as a cluster of several has it.
    pub fn second_server(&self) -> Result<ApiServer> {
        let listener = listen(&self.cluster, API_PORT + 1)?;
        self.server.serve_beside(listener)
    }

    /// A client of one of the servers.
    pub fn api_of(&self, server: &ApiServer) -> Client<'_> {
        Client::inside(&self.cluster.topology.router.netns, server.address())
    }

    pub fn apply(&self, service: &Service) -> Result<()> {
        self.api().apply(&service.object())
    }

    /// Creates or replaces the EndpointSlices of a service, one for each family.
    pub fn apply_endpoints(&self, vip: &Vip, endpoints: &Endpoints) -> Result<()> {
        apply_endpoints_at(self.api(), vip, endpoints)
    }

    /// A new service over TCP and UDP with the pods as its endpoints.
    pub fn publish(&self, name: &str, pods: &[&Pod]) -> Result<Vip> {
        let vip = self.cluster.vip(name);
        self.apply_endpoints(&vip, &vip.endpoints(pods))?;
        self.apply(&vip.service())?;
        Ok(vip)
    }

    /// The same, waited for.
    pub fn serve(&self, name: &str, pods: &[&Pod]) -> Result<Vip> {
        let vip = self.publish(name, pods)?;
        self.await_on_nodes(&vip, |answer| answer.who().is_some())?;
        Ok(vip)
    }

    /// Waits until the node ports of all nodes with an agent answer as wanted, in both families and protocols.
    pub fn await_on_nodes(&self, vip: &Vip, wanted: impl Fn(&Answer) -> bool) -> Result<()> {
        let client = self.cluster.topology.client();
        for node in self.cluster.nodes_with_agents() {
            for family in Family::BOTH {
                for protocol in Protocol::BOTH {
                    let target = vip.on_node(node, family);
                    eventually_within(ARRIVES_WITHIN, &format!("{protocol} {target}"), || {
                        let dial = dial(client, protocol, target).within(patient(ANSWERS_WITHIN));
                        let answer = dial.ask();
                        ensure!(wanted(&answer), "{answer}");
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Waits until every node's agent has said all of this in one line.
    pub fn await_said(&self, words: &[&str]) -> Result<()> {
        eventually_within(ARRIVES_WITHIN, &format!("the log says {words:?}"), || {
            let agents = self.cluster.agents();
            let said = |line: &String| words.iter().all(|word| line.contains(word));
            ensure!(
                agents.iter().all(|agent| agent.lines().iter().any(said)),
                "not said by all"
            );
            Ok(())
        })
    }
}

impl AsRef<Cluster> for World {
    fn as_ref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Creates or replaces the EndpointSlices of a service at a server.
pub fn apply_endpoints_at(api: Client, vip: &Vip, endpoints: &Endpoints) -> Result<()> {
    for family in Family::BOTH {
        api.apply(&endpoints.slice(&slice_name(vip, family), family))?;
    }
    Ok(())
}

/// The name of a service's EndpointSlice.
pub fn slice_name(vip: &Vip, family: Family) -> String {
    format!("{}-{family}", vip.name)
}

/// A world that its rows share: none of them may script faults.
pub struct SharedWorld(Arc<Shared<World>>);

impl SharedWorld {
    pub fn new(nodes: u8) -> Self {
        Self(Shared::new(move || World::start(nodes)))
    }

    pub fn row(&self, name: &str, test: fn(&World) -> Result<()>) -> Trial {
        cluster_row(name, &self.0, test)
    }
}

/// A test in a world of its own, in which no agent runs yet.
pub fn lone_row(name: &str, nodes: u8, test: fn(&World) -> Result<()>) -> Trial {
    row(name, no_agent(), move || {
        let world = World::build(nodes)?;
        test(&world).map_err(|error| error.context(world.cluster.logs()))
    })
}

/// One that takes minutes, for those who ask for it.
pub fn slow_row(name: &str, nodes: u8, test: fn(&World) -> Result<()>) -> Trial {
    if std::env::var_os(SLOW_ROWS).is_some() {
        lone_row(name, nodes, test)
    } else {
        row(name, Some(NOT_ASKED_FOR), || Ok(()))
    }
}

/// The label that gives a Service to another proxy; nothing takes it away.
pub fn proxy_label(proxy: Option<&str>) -> Value {
    json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": proxy}}})
}

/// A child that another row has forked and that is not in its program yet holds the sockets of all, an old listener too.
fn listen(cluster: &Cluster, port: u16) -> Result<TcpListener> {
    let at = address::on_segment(0, 1).v4;
    let router = &cluster.topology.router.netns;
    eventually(&format!("the API server at {at}:{port}"), || {
        Ok(router.run(|| TcpListener::bind((at, port)))?)
    })
}
