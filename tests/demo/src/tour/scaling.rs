//! An autoscaler that follows the connections per second that the agents count.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use controllers::metrics_api::{self, Identity};
use controllers::requests::Requests;
use controllers::scene::{await_pods, deployment, service, ways};
use testbed::patience::eventually;
use testbed::sockets::http;

use super::{Guide, PAUSE};

const AUTOSCALER: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: default}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 5
  behavior: {scaleDown: {stabilizationWindowSeconds: 1}}
  metrics:
    - type: Object
      object:
        describedObject: {apiVersion: v1, kind: Service, name: web}
        metric: {name: connections_per_second}
        target: {type: AverageValue, averageValue: \"8\"}
";

const SLOWLY: Duration = Duration::from_secs(1);

/// Gives the number of requests.
pub fn show(guide: &mut Guide<'_>) -> Result<u64> {
    let cluster = guide.cluster;
    guide.say("A metrics API runs in a pod; the API server reaches it by its ClusterIP, through Portside.")?;
    let identity = Identity::of("metrics", "default")?;
    metrics_api::register(cluster, &identity)?;
    let pod = cluster.topology.nodes[1].add_pod("metrics")?;
    let values = metrics_api::connections_per_second(cluster);
    let _api = metrics_api::serve(cluster, &pod, &identity, &values)?;

    cluster.client().apply(&deployment("web", 1))?;
    cluster.client().apply(&service("web"))?;
    await_pods(cluster, "web", 1)?;
    guide.apply(AUTOSCALER)?;
    let ways = ways(cluster, guide.visitor, "web")?;
    for (from, target) in &ways {
        eventually("the Service answers", || http::get(from, *target).map(drop))?;
    }
    let requests = Requests::start(ways, SLOWLY);
    eventually("the autoscaler sees the metric", || {
        let name = Resource::HorizontalPodAutoscalers;
        let autoscaler = cluster.objects().get(name, "default", "web");
        let status = autoscaler.context("no autoscaler")?["status"].clone();
        ensure!(status["conditions"][0]["status"] == "True", "{status}");
        Ok(())
    })?;
    guide.say("A few requests a second:")?;
    guide.kubectl(&["get", "hpa"])?;
    guide.say("As many as there can be:")?;
    requests.pace(PAUSE);
    await_pods(cluster, "web", 5)?;
    guide.kubectl(&["get", "hpa"])?;
    guide.say("And a few again:")?;
    requests.pace(SLOWLY);
    await_pods(cluster, "web", 1)?;
    guide.kubectl(&["get", "hpa,pods"])?;
    let tally = requests.stop()?;
    guide.say(&format!(
        "{} requests, 0 failed, answered by {} pods",
        tally.requests,
        tally.by_pod.len()
    ))?;
    Ok(tally.requests)
}
