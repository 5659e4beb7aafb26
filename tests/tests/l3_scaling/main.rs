//! Deployments and their autoscaling in front of Portside: real `kubectl`, controllers as in a cluster, and requests that must
//! not notice any of it. An API server that is a process of a node reaches an aggregated API by its ClusterIP.

mod prometheus;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use controllers::cluster::LiveCluster;
use controllers::metrics_api::{self, CONNECTIONS, Identity};
use controllers::requests::Requests;
use controllers::scene::{await_pods, deployment, service, ways};
use serde_json::{Value, json};
use testbed::agent::Uplink;
use testbed::cli;
use testbed::patience::eventually;
use testbed::runner::{self, no_agent, row};
use testbed::sockets::http;
use testbed::topology::Pod;

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
        "a Deployment of no pods is scaled up by the packets that are held, and the first client is served",
        no_agent(),
        awoken,
    ));
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

/// A cluster with a pod that only asks.
fn with_visitor(uplink: Uplink) -> Result<(Pod, LiveCluster)> {
    let cluster = LiveCluster::build(uplink)?;
    Ok((cluster.topology.nodes[1].add_pod("visitor")?, cluster))
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
    metrics_api::register(&cluster, &identity)?;
    let unreachable = cluster.client().call("GET", PATH, &Value::Null)?.0;
    ensure!(
        unreachable == 503,
        "{unreachable} from an API that nobody serves"
    );

    let values: Arc<metrics_api::Values> = Arc::new(|_, _, _| Some(42_000));
    let pods = [0, 1].map(|node| cluster.topology.nodes[node].add_pod("metrics"));
    let [here, there] = pods;
    let (here, there) = (here?, there?);
    let first = metrics_api::serve(&cluster, &here, &identity, &values)?;
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
    let second = metrics_api::serve(&cluster, &there, &identity, &values)?;
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
    metrics_api::register(&cluster, &identity)?;
    let values = metrics_api::connections_per_second(&cluster);
    let metrics_pod = cluster.topology.nodes[1].add_pod("metrics")?;
    let api = metrics_api::serve(&cluster, &metrics_pod, &identity, &values)?;

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

/// What KEDA does: it looks at the clients that wait, and scales from nothing. Nobody stands in the way of their packets.
fn awoken() -> Result<()> {
    let (visitor, cluster) = with_visitor(Uplink::Xdp)?;
    cluster.client().apply(&deployment("asleep", 0))?;
    let mut held = service("asleep");
    held["metadata"]["annotations"] = json!({"portside.io/scale-from-zero": "hold"});
    cluster.client().apply(&held)?;
    let ways = ways(&cluster, &visitor, "asleep")?;
    for node in &cluster.topology.nodes {
        eventually("the Service is programmed", || {
            let shown = cli::ask(node, &["get", "services", "asleep", "-o", "name"])?;
            ensure!(shown.contains("asleep"), "{shown}");
            Ok(())
        })?;
    }
    let patience = Duration::from_secs(30);
    std::thread::scope(|scope| -> Result<()> {
        let asked: Vec<_> = ways
            .iter()
            .map(|(from, target)| {
                scope.spawn(move || http::fetch_within(patience, from, *target, "/"))
            })
            .collect();
        eventually("agents count clients that wait", || {
            let pending = cluster.metric("portside_service_pending_packets_total", "asleep")?;
            ensure!(pending >= ways.len() as u64, "{pending} packets are held");
            Ok(())
        })?;
        ensure!(
            asked.iter().all(|one| !one.is_finished()),
            "a client did not wait"
        );
        let path = format!("{}/asleep/scale", Resource::Deployments.path("default"));
        let change = json!({"spec": {"replicas": 1}});
        let (code, answer) = cluster.client().call("PATCH", &path, &change)?;
        ensure!(code == 200, "{answer}");
        for one in asked {
            let answer = one.join().expect("a client does not panic")?;
            ensure!(answer.body.starts_with("asleep-"), "{answer:?}");
        }
        Ok(())
    })
}
