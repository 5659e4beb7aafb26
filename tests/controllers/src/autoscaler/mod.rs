//! The loop of HorizontalPodAutoscalers (`pkg/controller/podautoscaler/horizontal.go`), as a client of the API server: metrics
//! come by `custom.metrics.k8s.io` and `external.metrics.k8s.io`, which the server passes on to whoever serves them.

mod algorithm;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use api_server::client::Client;
use api_server::objects::Objects;
use api_server::resource::Resource;
use serde_json::{Value, json};
use testbed::topology::Topology;

pub use self::algorithm::{Direction, History, Rules, Target};
use crate::object;
use crate::quantity;

/// Looks at every autoscaler again and again, on a thread. Dropping it ends that.
pub struct Autoscaler {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Autoscaler {
    /// Asks the API server at `server`, from the first node, each `interval` (15 s in a real cluster).
    pub fn start(
        objects: Objects,
        topology: Arc<Topology>,
        server: SocketAddr,
        interval: Duration,
    ) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let thread = thread::Builder::new()
            .name("autoscaler".into())
            .spawn(move || {
                let mut histories = BTreeMap::new();
                while !told.load(Ordering::Relaxed) {
                    let client = Client::inside(topology.nodes[0].netns(), server);
                    for autoscaler in objects.list(Resource::HorizontalPodAutoscalers) {
                        let history = histories.entry(object::uid(&autoscaler).to_owned());
                        let history = history.or_insert_with(History::default);
                        // What fails stands in its condition; the next round tries again.
                        let _ = reconcile(&objects, client, &autoscaler, history);
                    }
                    thread::sleep(interval);
                }
            })?;
        Ok(Self {
            stopped,
            thread: Some(thread),
        })
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn reconcile(
    objects: &Objects,
    client: Client<'_>,
    autoscaler: &Value,
    history: &mut History,
) -> Result<()> {
    let scaled = scale(objects, client, autoscaler, history);
    let condition = match &scaled {
        Ok(_) => json!({"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"}),
        Err(error) => {
            json!({"type": "ScalingActive", "status": "False", "reason": "FailedGetMetric",
            "message": format!("{error:#}")})
        }
    };
    objects.change(Resource::HorizontalPodAutoscalers, autoscaler, |new| {
        let status = &mut new["status"];
        if let Ok(outcome) = &scaled {
            status["currentReplicas"] = outcome.current.into();
            status["desiredReplicas"] = outcome.desired.into();
            status["currentMetrics"] = outcome.metrics.clone().into();
        }
        status["conditions"] = json!([condition]);
    })?;
    scaled.map(drop)
}

struct Outcome {
    current: u64,
    desired: u64,
    metrics: Vec<Value>,
}

fn scale(
    objects: &Objects,
    client: Client<'_>,
    autoscaler: &Value,
    history: &mut History,
) -> Result<Outcome> {
    let spec = &autoscaler["spec"];
    let kind = spec["scaleTargetRef"]["kind"].as_str().unwrap_or_default();
    let name = spec["scaleTargetRef"]["name"].as_str().unwrap_or_default();
    ensure!(
        kind == "Deployment",
        "scaleTargetRef.kind: {kind:?} is not supported here"
    );
    let namespace = object::namespace(autoscaler);
    let target = objects.get(Resource::Deployments, namespace, name);
    let target = target.with_context(|| format!("Deployment {namespace}/{name} is missing"))?;
    let current = target["spec"]["replicas"].as_u64().unwrap_or(0);
    let ready = target["status"]["readyReplicas"].as_u64().unwrap_or(0);

    let mut most = None;
    let mut metrics = Vec::new();
    for metric in spec["metrics"].as_array().into_iter().flatten() {
        let (source, now) = ask(client, namespace, metric)?;
        let wanted = Target::read(&metric[source]["target"])?;
        most = most.max(Some(wanted.replicas(now, current, ready)));
        let shown = match wanted {
            Target::Value(_) => json!({"value": quantity::text(now)}),
            Target::AverageValue(_) => {
                json!({"averageValue": quantity::text(now / current.max(1) as i64)})
            }
        };
        metrics.push(json!({"type": metric["type"], source: {"current": shown}}));
    }
    let most = most.context("spec.metrics is empty")?;
    let bound = |field: &str, default| spec[field].as_u64().unwrap_or(default);
    let wanted = most.clamp(bound("minReplicas", 1), bound("maxReplicas", 1));
    let [up, down] =
        [Direction::Up, Direction::Down].map(|one| Rules::read(&spec["behavior"], one));
    let now = Instant::now();
    // Nobody scales what is scaled to nothing.
    let desired = if current == 0 {
        0
    } else {
        history.within(now, current, wanted, &up?, &down?)
    };
    if desired != current {
        let path = format!("{}/{name}/scale", Resource::Deployments.path(namespace));
        let change = json!({"spec": {"replicas": desired}});
        let (code, answer) = client.call("PATCH", &path, &change)?;
        ensure!(code == 200, "PATCH {path}: {answer}");
        history.changed(now, current, desired);
    }
    Ok(Outcome {
        current,
        desired,
        metrics,
    })
}

/// The field of a metric's source, and its value now in thousandths.
fn ask(client: Client<'_>, namespace: &str, metric: &Value) -> Result<(&'static str, i64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (source, path, field) = match metric["type"].as_str().unwrap_or_default() {
        "Object" => {
            let described = &metric["object"]["describedObject"];
            let resource = Resource::from_kind(&text(&described["kind"]));
            let resource = resource.context("describedObject.kind is not served")?;
            let (plural, name) = (resource.plural(), text(&described["name"]));
            let metric = text(&metric["object"]["metric"]["name"]);
            (
                "object",
                format!(
                    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{plural}/{name}/{metric}"
                ),
                "value",
            )
        }
        "External" => {
            let metric = &metric["external"]["metric"];
            let labels = metric["selector"]["matchLabels"]
                .as_object()
                .into_iter()
                .flatten();
            let labels: Vec<_> = labels
                .map(|(key, value)| format!("{key}%3D{}", text(value)))
                .collect();
            let (name, labels) = (text(&metric["name"]), labels.join("%2C"));
            (
                "external",
                format!(
                    "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}?labelSelector={labels}"
                ),
                "value",
            )
        }
        other => bail!("metrics[].type: {other:?} is not supported here"),
    };
    let (code, answer) = client.call("GET", &path, &Value::Null)?;
    ensure!(code == 200, "GET {path}: {code}: {}", answer["message"]);
    let items = answer["items"].as_array();
    let items = items.filter(|all| !all.is_empty());
    let items = items.with_context(|| format!("GET {path}: no value"))?;
    let values = items.iter().map(|item| quantity::milli(&item[field]));
    Ok((source, values.sum::<Result<i64>>()?))
}
