//! ReplicaSets: as many Pods as each asks for (`pkg/controller/replicaset`).

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use api_server::objects::Objects;
use api_server::resource::Resource;
use api_server::table::is_ready;
use serde_json::{Value, json};

use super::object;

/// Pods are told apart by a number, where a real cluster draws letters.
static NEXT: AtomicU32 = AtomicU32::new(1);

pub fn reconcile(objects: &Objects) -> Result<()> {
    for set in objects.list(Resource::ReplicaSets) {
        let pods = objects.list(Resource::Pods);
        let mut pods: Vec<_> = pods
            .iter()
            .filter(|pod| object::is_owned(pod, &set) && !object::is_deleted(pod))
            .collect();
        let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
        for _ in pods.len()..wanted {
            objects.create(Resource::Pods, pod(&set))?;
        }
        // Those go first that do not serve, then the newest.
        pods.sort_by_key(|pod| (!is_ready(pod), number(pod)));
        for pod in pods.iter().skip(wanted) {
            objects.begin_deletion(Resource::Pods, pod)?;
        }
        let kept = &pods[..pods.len().min(wanted)];
        let status = json!({
            "replicas": kept.len(), "readyReplicas": kept.iter().filter(|pod| is_ready(pod)).count(),
            "observedGeneration": set["metadata"]["generation"],
        });
        objects.change(Resource::ReplicaSets, &set, |new| new["status"] = status)?;
    }
    Ok(())
}

fn number(pod: &Value) -> u32 {
    let end = object::name(pod).rsplit('-').next();
    end.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "metadata": {
            "name": format!("{}-{number:05}", object::name(set)),
            "namespace": set["metadata"]["namespace"],
            "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
            "ownerReferences": object::owned_by(set),
        },
        "spec": template["spec"],
    })
}
