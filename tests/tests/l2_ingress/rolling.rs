//! Controllers and applications are replaced pod by pod under load: no request fails and no connection is reset.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::kube_proxy;
use testbed::patience::{eventually, patient};
use testbed::runner::{no_agent, row};
use testbed::sockets::http;
use testbed::topology::{Host, Node, Plan, Pod};

use crate::app::App;
use crate::certificates::Certificates;
use crate::controller::{BLOG, Controller, Kind, SHOP, Settings};
use crate::load::{self, Count, Load};
use crate::recipe::{self, Condition, Ports, Published};
use crate::site::{CHECK_PORT, NODE_PORTS, hook, missing};

/// A connection's, after which nginx ends it: a pod that terminates is left soon.
const REQUESTS: u32 = 20;

/// Asked in a row of each node in each family, none of them by a pod that terminates.
const FRESH: usize = 20;

/// How long the health-check node port may take to tell.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Answers after the health-check node port has told.
const STILL: usize = 100;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let named = |name: &str, test: fn(Uplink) -> Result<()>| {
        let missing = no_agent().or(missing(Kind::Nginx));
        let name = format!("{}: rolling: {name}", hook(uplink));
        row(name, missing, move || test(uplink))
    };
    vec![
        named("pods are replaced under load and no request fails", replace),
        named(
            "a node whose pods terminate says so at once and serves on",
            leave_node,
        ),
    ]
}

/// What is replaced, and how it is told.
struct Rollout {
    apps: Vec<App>,
    controllers: Vec<(Controller, Pod)>,
    /// The controllers' and the application's.
    ingress: Service,
    shop: Service,
    certificates: Certificates,
    ports: Ports,
    started: usize,
}

/// As it is published: by manifests, or by rules.
struct Service {
    published: Published,
    vip: Vip,
}

impl Service {
    fn publish(&self, cluster: &Cluster, pods: &[(&Pod, Condition)]) -> Result<()> {
        if !cluster.has_rules() {
            return self.published.apply_endpoints(&cluster.manifests, pods);
        }
        // As kube-proxy does: those that are ready, and where none is, those that still serve.
        let of = |wanted| {
            let those = pods
                .iter()
                .filter(move |(_, condition)| *condition == wanted);
            those.map(|(pod, _)| *pod).collect::<Vec<_>>()
        };
        let ready = of(Condition::Ready);
        let served = if ready.is_empty() {
            of(Condition::Terminating)
        } else {
            ready
        };
        let mut nodes = cluster.topology.nodes.iter();
        nodes.try_for_each(|node| kube_proxy::replace(node, &self.vip, &served))
    }

    fn begin(cluster: &Cluster, published: Published, vip: Vip, pods: &[&Pod]) -> Result<Self> {
        let service = Self { published, vip };
        if cluster.has_rules() {
            for node in &cluster.topology.nodes {
                kube_proxy::install(node, &service.vip, pods)?;
            }
        } else {
            service.published.apply(&cluster.manifests)?;
            service.publish(cluster, &all_ready(pods.iter().copied()))?;
        }
        Ok(service)
    }
}

fn all_ready<'a>(pods: impl Iterator<Item = &'a Pod>) -> Vec<(&'a Pod, Condition)> {
    pods.map(|pod| (pod, Condition::Ready)).collect()
}

/// A Service of one port of the application, as the recipes' are.
fn shop_service() -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "shop", "namespace": "shop" },
        "spec": { "type": "ClusterIP", "ports": [{ "name": "http", "port": 80, "targetPort": PORT }] },
    })
}

impl Rollout {
    /// A controller and a pod of the application on each node.
    fn begin(
        cluster: &Cluster,
        recipe: impl FnOnce(&Vip) -> Result<(Published, u16)>,
    ) -> Result<Self> {
        let run = &cluster.topology.run;
        let certificates = Certificates::create(run.directory("certificates")?, &[SHOP, BLOG])?;
        let apps = cluster
            .topology
            .nodes
            .iter()
            .map(|node| App::start("shop", node.add_pod(&format!("shop{}", node.number))?))
            .collect::<Result<Vec<_>>>()?;
        let vip = cluster.vip("shop");
        let published = Published::of(&shop_service(), vip.ip)?;
        let pods: Vec<_> = apps.iter().map(|app| &app.pod).collect();
        let shop = Service::begin(cluster, published, vip, &pods)?;

        let mut vip = cluster.vip("ingress");
        let (published, node_port) = recipe(&vip)?;
        vip.node_port = node_port;
        let ports = published.ports("targetPort")?;
        ensure!(ports.http == PORT, "the rules lead to {PORT}");
        let mut rollout = Self {
            apps,
            controllers: Vec::new(),
            ingress: Service { published, vip },
            shop,
            certificates,
            ports,
            started: 0,
        };
        for node in &cluster.topology.nodes {
            let controller = rollout.start_controller(cluster, node)?;
            rollout.controllers.push(controller);
        }
        let Service { published, vip } = rollout.ingress;
        let pods: Vec<_> = rollout.controllers.iter().map(|(_, pod)| pod).collect();
        rollout.ingress = Service::begin(cluster, published, vip, &pods)?;
        if !cluster.has_rules() {
            cluster.start_agents()?;
        }
        for target in rollout.targets(cluster) {
            eventually(&format!("{target} answers"), || {
                load::ask_who(cluster.topology.client(), target)
            })?;
        }
        Ok(rollout)
    }

    fn start_controller(&mut self, cluster: &Cluster, node: &Node) -> Result<(Controller, Pod)> {
        self.started += 1;
        let name = format!("i{}", self.started);
        let pod = node.add_pod(&name)?;
        let settings = Settings {
            name: &name,
            ports: self.ports,
            proxied: None,
            shop: self.shop.vip.ip,
            blog: self.shop.vip.ip,
            certificates: &self.certificates,
            requests: REQUESTS,
        };
        let directory = cluster
            .topology
            .run
            .directory(&format!("{name}.controller"))?;
        let controller = Controller::start(Kind::Nginx, &pod.netns, directory, &settings)?;
        // As its readiness probe asks, from the node.
        for family in Family::BOTH {
            let at = SocketAddr::new(pod.ip.of(family), self.ports.http);
            let ready = eventually(&format!("{name} listens"), || {
                http::fetch(node.netns(), at, "/").map(drop)
            });
            ready.map_err(|error| error.context(controller.log()))?;
        }
        Ok((controller, pod))
    }

    /// The node ports of all nodes, in both families.
    fn targets(&self, cluster: &Cluster) -> Vec<SocketAddr> {
        let nodes = cluster.topology.nodes.iter();
        nodes
            .flat_map(|node| targets_of(node, self.ingress.vip.node_port))
            .collect()
    }

    fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.controllers.iter().map(|(_, pod)| pod)
    }

    /// Replaces the controller on each node: another one is ready before it terminates.
    fn replace_controllers(&mut self, cluster: &Cluster) -> Result<()> {
        for node in &cluster.topology.nodes {
            let controller = self.start_controller(cluster, node)?;
            self.controllers.push(controller);
            self.ingress.publish(cluster, &all_ready(self.pods()))?;
            let (mut old, pod) = self.controllers.remove(0);
            let publish = |and: Option<&Pod>| {
                let mut pods = all_ready(self.pods());
                pods.extend(and.map(|pod| (pod, Condition::Terminating)));
                self.ingress.publish(cluster, &pods)
            };
            publish(Some(&pod))?;
            self.await_left(cluster, &pod.name, 0)?;
            await_drained(&pod, self.ports.http)?;
            old.quit()?;
            publish(None)?;
        }
        Ok(())
    }

    fn replace_apps(&mut self, cluster: &Cluster) -> Result<()> {
        for node in &cluster.topology.nodes {
            self.started += 1;
            let pod = node.add_pod(&format!("shop{}", self.started))?;
            self.apps.push(App::start("shop", pod)?);
            self.shop
                .publish(cluster, &all_ready(self.apps.iter().map(|app| &app.pod)))?;
            let old = self.apps.remove(0);
            let publish = |and: Option<&Pod>| {
                let mut pods = all_ready(self.apps.iter().map(|app| &app.pod));
                pods.extend(and.map(|pod| (pod, Condition::Terminating)));
                self.shop.publish(cluster, &pods)
            };
            publish(Some(&old.pod))?;
            old.leave();
            self.await_left(cluster, &old.pod.name, 1)?;
            old.await_idle()?;
            publish(None)?;
        }
        Ok(())
    }

    /// Waits until new requests at every node go past the pod: the first or second word of who answers.
    fn await_left(&self, cluster: &Cluster, pod: &str, word: usize) -> Result<()> {
        eventually(&format!("{pod} is left"), || {
            for target in self.targets(cluster) {
                for _ in 0..FRESH {
                    let who = load::ask_who(cluster.topology.client(), target)?;
                    ensure!(who.split(' ').nth(word) != Some(pod), "{target}: {who}");
                }
            }
            Ok(())
        })
    }
}

fn targets_of(node: &Node, port: u16) -> [SocketAddr; 2] {
    Family::BOTH.map(|family| SocketAddr::new(node.host.ip.of(family), port))
}

/// Waits until nobody has a connection to this port of the pod, as a `preStop` hook would.
fn await_drained(pod: &Host, port: u16) -> Result<()> {
    eventually(&format!("{} has no connection", pod.name), || {
        let tables = pod.netns.run(|| {
            let table = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            table("tcp").and_then(|tcp| Ok(tcp + &table("tcp6")?))
        })?;
        let port = format!(":{port:04X}");
        // Columns: number, local address, remote address, state. Established, and not yet so.
        let open = tables.lines().filter(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = columns[..] else {
                return false;
            };
            local.ends_with(&port) && ["01", "03"].contains(&state)
        });
        let open = open.count();
        ensure!(open == 0, "{open} are open");
        Ok(())
    })
}

fn by_node_ports(vip: &Vip) -> Result<(Published, u16)> {
    let recipe = recipe::block("Behind node ports")?;
    let published = Published::of(&recipe, vip.ip)?;
    let node_port = published.ports("nodePort")?.http;
    Ok((published, node_port))
}

/// Both rollouts, under load.
fn roll(cluster: &Cluster) -> Result<Count> {
    // One more pod at a time, and none less: what `Rollout` does.
    let recipe = recipe::block("Rolling updates")?;
    let how = &recipe["spec"]["strategy"]["rollingUpdate"];
    ensure!(
        *how == json!({ "maxSurge": 1, "maxUnavailable": 0 }) && recipe["spec"]["replicas"] == 2,
        "another rollout: {recipe}"
    );
    let mut rollout = Rollout::begin(cluster, by_node_ports)?;
    let load = Load::new(cluster.topology.client(), rollout.targets(cluster));
    let count = load.during(|_| {
        rollout.replace_controllers(cluster)?;
        rollout.replace_apps(cluster)
    })?;
    // All that began have ended, and all that came have served.
    for name in ["i3", "i4"] {
        let served = count.by.keys().any(|who| who.starts_with(name));
        ensure!(served, "{name} served nothing: {:?}", count.by);
    }
    Ok(count)
}

fn replace(uplink: Uplink) -> Result<()> {
    let cluster = Cluster::build(&Plan::default(), uplink)?;
    let count = roll(&cluster).map_err(|error| error.context(cluster.logs()))?;
    eprintln!("Portside: {}", count.summary());
    if uplink == Uplink::Tc {
        let rules = Cluster::build_with_rules(&Plan::default())?;
        eprintln!("rules like kube-proxy's: {}", roll(&rules)?.summary());
    }
    if count.failed > 0 {
        bail!("{}: {:#?}\n{}", count.summary(), count.how, cluster.logs());
    }
    Ok(())
}

fn leave_node(uplink: Uplink) -> Result<()> {
    let cluster = &Cluster::build(&Plan::default(), uplink)?;
    let left = leave_first_node(cluster).map_err(|error| error.context(cluster.logs()));
    left.map(|()| cluster.stop_agents())
}

fn leave_first_node(cluster: &Cluster) -> Result<()> {
    let by_balancer = |vip: &Vip| {
        let recipe = recipe::block("Behind a load balancer's address")?;
        let published = Published::of(&recipe, vip.ip)?
            .with_node_ports(NODE_PORTS)
            .with("healthCheckNodePort", json!(CHECK_PORT));
        Ok((published, NODE_PORTS))
    };
    let mut rollout = Rollout::begin(cluster, by_balancer)?;
    let [first, second] = [1, 2].map(|number| cluster.node(number));
    let client = cluster.topology.client();
    let check = |family| {
        let at = SocketAddr::new(first.host.ip.of(family), CHECK_PORT);
        http::fetch(&client.netns, at, "/").map(|response| response.status)
    };
    for family in Family::BOTH {
        ensure!(check(family)? == 200, "it has a pod that is ready");
    }
    let load = Load::new(client, targets_of(first, NODE_PORTS).to_vec());
    let count = load.during(|load| {
        let (mut old, pod) = rollout.controllers.remove(0);
        let mut pods = all_ready(rollout.pods());
        pods.push((&pod, Condition::Terminating));
        rollout.ingress.publish(cluster, &pods)?;
        let told = Instant::now();
        for family in Family::BOTH {
            eventually("the health-check node port says so", || {
                let status = check(family)?;
                ensure!(status == 503, "{status}");
                Ok(())
            })?;
        }
        let took = told.elapsed();
        ensure!(took < patient(TOLD_WITHIN), "it took {took:?}");
        eprintln!("503 after {took:?}");
        let before = load.answers();
        eventually("the node serves on", || {
            let since = load.answers() - before;
            ensure!(since >= STILL, "{since} answers");
            Ok(())
        })?;
        // Now the load balancer has seen it.
        *load.targets.write().expect("nobody panics with them") =
            targets_of(second, NODE_PORTS).to_vec();
        await_drained(&pod, rollout.ports.http)?;
        old.quit()?;
        rollout.ingress.publish(cluster, &all_ready(rollout.pods()))
    })?;
    eprintln!("{}", count.summary());
    ensure!(count.failed == 0, "{}: {:#?}", count.summary(), count.how);
    let by_first: usize = count
        .by
        .iter()
        .filter(|(who, _)| who.starts_with("i1"))
        .map(|(_, answers)| answers)
        .sum();
    by_first
        .checked_sub(STILL)
        .context("the node's own pod served")?;
    Ok(())
}
