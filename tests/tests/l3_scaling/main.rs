//! Deployments and their autoscaling in front of Portside: real `kubectl`, controllers as in a cluster, and requests that must
//! not notice any of it. An API server that is a process of a node reaches an aggregated API by its ClusterIP.

mod prometheus;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use controllers::cluster::{self, LiveCluster};
use controllers::metrics_api::{self, Identity, MetricsApi, Rate};
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::cli;
use testbed::netns::Netns;
use testbed::patience::eventually;
use testbed::runner::{self, no_agent, row};
use testbed::sockets::http;
use testbed::topology::Pod;

const CONNECTIONS: &str = "portside_service_connections_total";

fn main() -> ExitCode {
    let no_kubectl = cli::no_kubectl();
    let mut rows = vec![
        row(
            "kubectl creates, exposes, scales, replaces and deletes a Deployment under requests",
            no_agent().or(no_kubectl),
            by_kubectl,
        ),
        row(
            "the API server reaches an aggregated API by its ClusterIP, by connections that are kept and by new ones",
            no_agent(),
            aggregated,
        ),
    ];
    rows.push(row(
        "a real Prometheus has the numbers that clients made, by the queries of docs/autoscaling.md",
        no_agent().or_else(prometheus::missing),
        prometheus::scrapes,
    ));
    for uplink in [Uplink::Xdp, Uplink::Tc] {
        let hook = format!("{uplink:?}").to_lowercase();
        rows.push(row(
            format!("{hook}: an autoscaler goes from 1 to 5 pods and back by connections, and no request fails"),
            no_agent(),
            move || autoscaled(uplink),
        ));
    }
    runner::main(rows)
}

/// Requests at a pace, from a client outside and from a pod, in both families.
struct Requests {
    state: Arc<State>,
    loops: Vec<JoinHandle<()>>,
}

struct State {
    is_over: AtomicBool,
    pause: AtomicU64,
    tally: Mutex<Tally>,
}

#[derive(Default, Debug)]
struct Tally {
    requests: u64,
    failures: Vec<String>,
    by_pod: BTreeMap<String, u64>,
}

impl Requests {
    fn start<'a>(ways: impl IntoIterator<Item = (&'a Netns, SocketAddr)>, pause: Duration) -> Self {
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

    fn pace(&self, pause: Duration) {
        self.state.pause.store(millis(pause), Ordering::Relaxed);
    }

    fn pods(&self) -> BTreeMap<String, u64> {
        self.state
            .tally
            .lock()
            .expect("no loop panics")
            .by_pod
            .clone()
    }

    fn stop(self) -> Result<Tally> {
        self.state.is_over.store(true, Ordering::Relaxed);
        for one in self.loops {
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

/// A cluster with a pod that only asks.
fn with_visitor(uplink: Uplink) -> Result<(Pod, LiveCluster)> {
    let cluster = LiveCluster::build(uplink)?;
    Ok((cluster.topology.nodes[1].add_pod("visitor")?, cluster))
}

/// The client and the visitor ask by NodePort and by ClusterIP, in every family that the Service has.
fn ways<'a>(
    cluster: &'a LiveCluster,
    visitor: &'a Pod,
    service: &str,
) -> Result<Vec<(&'a Netns, SocketAddr)>> {
    let object = cluster
        .objects()
        .get(Resource::Services, "default", service);
    let object = object.with_context(|| format!("no Service {service}"))?;
    let port = &object["spec"]["ports"][0];
    let number = |field: &str| -> Result<u16> {
        let number = port[field]
            .as_u64()
            .with_context(|| format!("no {field}: {object}"))?;
        Ok(u16::try_from(number)?)
    };
    let mut ways = Vec::new();
    for address in object["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let address: IpAddr = address.as_str().unwrap_or_default().parse()?;
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let node = cluster.topology.nodes[0].host.ip.of(family);
        ways.push((
            &cluster.topology.client().netns,
            SocketAddr::new(node, number("nodePort")?),
        ));
        ways.push((&visitor.netns, SocketAddr::new(address, number("port")?)));
    }
    Ok(ways)
}

/// Waits until a Deployment has that many ready pods, and no others exist.
fn await_pods(cluster: &LiveCluster, deployment: &str, count: u64) -> Result<()> {
    eventually(&format!("{deployment} has {count} ready pods"), || {
        let object = cluster
            .objects()
            .get(Resource::Deployments, "default", deployment);
        let object = object.context("the Deployment is gone")?;
        let ready = object["status"]["readyReplicas"].as_u64();
        let pods = cluster.objects().list(Resource::Pods).len() as u64;
        ensure!(
            ready == Some(count) && pods == count,
            "{pods} pods; {}",
            object["status"]
        );
        Ok(())
    })
}

fn by_kubectl() -> Result<()> {
    let (visitor, cluster) = with_visitor(Uplink::Xdp)?;
    cluster.kubectl(&[
        "create",
        "deployment",
        "np-pods",
        "--image=web:1",
        "--port=80",
        "--replicas=2",
    ])?;
    cluster.kubectl(&[
        "expose",
        "deployment",
        "np-pods",
        "--type=NodePort",
        "--name=np-svc-v2",
        "--port=80",
    ])?;
    await_pods(&cluster, "np-pods", 2)?;
    let ways = ways(&cluster, &visitor, "np-svc-v2")?;
    for (from, target) in &ways {
        eventually("the Service answers", || http::get(from, *target).map(drop))?;
    }
    let shown = cluster.kubectl(&["get", "services"])?;
    let columns = "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE";
    ensure!(words(&shown, 0) == columns, "{shown}");
    ensure!(
        words(&shown, 1).starts_with("np-svc-v2 NodePort 10.96.0.1 <none> 80:30000/TCP"),
        "{shown}"
    );

    let requests = Requests::start(ways.iter().copied(), Duration::from_millis(2));
    let serving = |count: usize| {
        let before = requests.pods();
        eventually(&format!("{count} pods serve"), || {
            let now = requests.pods();
            let grew = now
                .iter()
                .filter(|(pod, count)| before.get(*pod).is_none_or(|old| old < count));
            let grew: Vec<_> = grew.map(|(pod, _)| pod).collect();
            ensure!(grew.len() >= count, "{grew:?}");
            Ok(())
        })
    };
    serving(2)?;
    for count in [5, 1, 3] {
        let replicas = format!("--replicas={count}");
        cluster.kubectl(&["scale", "deployment", "np-pods", &replicas])?;
        await_pods(&cluster, "np-pods", count)?;
        serving(count as usize)?;
    }
    // A new image replaces every pod, a few at a time.
    let old = requests.pods();
    cluster.kubectl(&["set", "image", "deployment/np-pods", "web=web:2"])?;
    eventually("every pod is a new one", || {
        let pods = cluster.objects().list(Resource::Pods);
        let images = pods
            .iter()
            .map(|pod| &pod["spec"]["containers"][0]["image"]);
        let images: Vec<_> = images.collect();
        ensure!(
            images.len() == 3 && images.iter().all(|image| **image == "web:2"),
            "{images:?}"
        );
        Ok(())
    })?;
    await_pods(&cluster, "np-pods", 3)?;
    eventually("a new pod serves", || {
        ensure!(requests.pods().keys().any(|pod| !old.contains_key(pod)));
        Ok(())
    })?;
    let listed = cluster.kubectl(&["get", "deployments,pods"])?;
    ensure!(
        listed.contains("deployment.apps/np-pods") && listed.contains("3/3"),
        "{listed}"
    );
    let tally = requests.stop()?;
    ensure!(tally.by_pod.len() >= 6, "{:?}", tally.by_pod);

    cluster.kubectl(&["delete", "services", "np-svc-v2"])?;
    for (from, target) in &ways {
        eventually("a deleted Service does not answer", || {
            ensure!(http::get(from, *target).is_err(), "{target} answers still");
            Ok(())
        })?;
    }
    cluster.kubectl(&["delete", "deployment", "np-pods"])?;
    eventually("the pods of a deleted Deployment are gone", || {
        let pods = cluster.objects().list(Resource::Pods);
        ensure!(pods.is_empty(), "{} are left", pods.len());
        Ok(())
    })
}

/// The words of a line, with one space between them.
fn words(text: &str, line: usize) -> String {
    let words = text
        .lines()
        .nth(line)
        .unwrap_or_default()
        .split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn deployment(name: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 80}]}]},
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "NodePort", "selector": {"app": name}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"port": 80, "targetPort": 80}],
        },
    })
}

/// A metrics API in a pod, behind a Service without a selector.
fn serve_metrics(
    cluster: &LiveCluster,
    pod: &Pod,
    identity: &Identity,
    values: &Arc<metrics_api::Values>,
) -> Result<MetricsApi> {
    let api = MetricsApi::start(pod, identity, Arc::clone(values))?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "metrics-a", "namespace": "default", "labels": {"kubernetes.io/service-name": "metrics"}},
        "addressType": "IPv4", "ports": [{"name": "", "protocol": "TCP", "port": metrics_api::PORT}],
        "endpoints": [{"addresses": [pod.ip.v4], "nodeName": pod.node, "conditions": {"ready": true}}],
    });
    cluster.client().apply(&slice)?;
    Ok(api)
}

fn register(cluster: &LiveCluster, identity: &Identity) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics", "namespace": "default"},
        "spec": {"ports": [{"port": 443, "targetPort": metrics_api::PORT}]},
    });
    cluster.client().apply(&service)?;
    for one in identity.api_services("metrics", "default") {
        cluster.client().apply(&one)?;
    }
    Ok(())
}

fn aggregated() -> Result<()> {
    const PATH: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/web/answer";
    let cluster = LiveCluster::build(Uplink::Xdp)?;
    let ask = || -> Result<()> {
        let (code, answer) = cluster.client().call("GET", PATH, &Value::Null)?;
        ensure!(
            code == 200 && answer["items"][0]["value"] == "42",
            "{code}: {answer}"
        );
        Ok(())
    };
    let identity = Identity::of("metrics", "default")?;
    register(&cluster, &identity)?;
    let unreachable = cluster.client().call("GET", PATH, &Value::Null)?.0;
    ensure!(
        unreachable == 503,
        "{unreachable} from an API that nobody serves"
    );

    let values: Arc<metrics_api::Values> = Arc::new(|_, _, _| Some(42_000));
    let pods = [0, 1].map(|node| cluster.topology.nodes[node].add_pod("metrics"));
    let [here, there] = pods;
    let (here, there) = (here?, there?);
    let first = serve_metrics(&cluster, &here, &identity, &values)?;
    eventually("the aggregated API answers", ask)?;
    for _ in 0..50 {
        ask()?;
    }
    let kept = first.connections();
    ensure!(
        kept == 1,
        "{kept} connections for 51 requests one after the other"
    );

    // The endpoint moves to the other node: who has a connection keeps it, until its end is closed.
    let second = serve_metrics(&cluster, &there, &identity, &values)?;
    for node in &cluster.topology.nodes {
        eventually("the new endpoint is the only backend", || {
            let backends = testbed::cli::ask(node, &["get", "backends", "-A"])?;
            let [new, old] = [&there, &here].map(|pod| {
                backends.contains(&SocketAddr::new(pod.ip.v4.into(), metrics_api::PORT).to_string())
            });
            ensure!(new && !old, "{backends}");
            Ok(())
        })?;
    }
    let before = first.requests();
    ask()?;
    ensure!(
        first.requests() == before + 1,
        "the kept connection was left"
    );
    drop(first);
    for _ in 0..50 {
        ask()?;
    }
    ensure!(second.connections() == 1 && second.requests() == 50);
    // And a client that keeps none: each of these finds the API behind its ClusterIP anew.
    Ok(())
}

fn autoscaled(uplink: Uplink) -> Result<()> {
    let (visitor, cluster) = with_visitor(uplink)?;
    let identity = Identity::of("metrics", "default")?;
    register(&cluster, &identity)?;
    let topology = Arc::clone(&cluster.topology);
    let rate = Rate::default();
    // What agents count, summed over the cluster: a connection counts at the node that decided.
    let values: Arc<metrics_api::Values> = Arc::new(move |_, service, metric| {
        let count = (metric == "connections_per_second")
            .then(|| cluster::sum(&topology, CONNECTIONS, service));
        rate.at(count?.ok()?)
    });
    let metrics_pod = cluster.topology.nodes[1].add_pod("metrics")?;
    let api = serve_metrics(&cluster, &metrics_pod, &identity, &values)?;

    cluster.client().apply(&deployment("web", 1))?;
    cluster.client().apply(&service("web"))?;
    await_pods(&cluster, "web", 1)?;
    let ways = ways(&cluster, &visitor, "web")?;
    ensure!(ways.len() == 4, "{} ways", ways.len());
    for (from, target) in &ways {
        eventually("the Service answers", || http::get(from, *target).map(drop))?;
    }
    let asked = ways.len() as u64;
    await_connections(&cluster, asked)?;
    let slow = Duration::from_millis(1000);
    let requests = Requests::start(ways.iter().copied(), slow);
    cluster.client().apply(&json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 5,
            "metrics": [{"type": "Object", "object": {
                "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
                "metric": {"name": "connections_per_second"},
                "target": {"type": "AverageValue", "averageValue": "8"},
            }}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}},
        },
    }))?;
    eventually("the autoscaler sees the metric", || {
        let autoscaler =
            cluster
                .objects()
                .get(Resource::HorizontalPodAutoscalers, "default", "web");
        let status = autoscaler.context("no autoscaler")?["status"].clone();
        ensure!(status["conditions"][0]["status"] == "True", "{status}");
        Ok(())
    })?;
    await_pods(&cluster, "web", 1)?;
    requests.pace(Duration::from_millis(5));
    await_pods(&cluster, "web", 5)?;
    let at_five = requests.pods();
    eventually("all five pods serve", || {
        let now = requests.pods();
        let grew = now
            .iter()
            .filter(|(pod, count)| at_five.get(*pod).is_none_or(|old| old < count));
        ensure!(grew.count() == 5, "{now:?} after {at_five:?}");
        Ok(())
    })?;
    requests.pace(slow);
    await_pods(&cluster, "web", 1)?;
    let tally = requests.stop()?;
    ensure!(tally.by_pod.len() == 5, "{:?}", tally.by_pod);
    ensure!(api.requests() > 0, "nobody asked the metrics API");
    await_connections(&cluster, asked + tally.requests)
}

/// Waits until the agents together have counted that many connections: metrics tell what was counted a moment ago.
fn await_connections(cluster: &LiveCluster, count: u64) -> Result<()> {
    eventually("agents count every connection once", || {
        let counted = cluster.metric(CONNECTIONS, "web")?;
        ensure!(
            counted == count,
            "{counted} connections of {count} requests"
        );
        Ok(())
    })
}
