//! Deployments: a ReplicaSet for each template, and rolling updates from one to the next
//! (`pkg/controller/deployment/rolling.go`).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Result;
use api_server::objects::Objects;
use api_server::resource::Resource;
use serde_json::{Value, json};

use super::object;

const HASH: &str = "pod-template-hash";

/// The replicas of one side of a rolling update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    pub replicas: u64,
    pub ready: u64,
}

/// How many more, or fewer, pods there may be meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub surge: u64,
    pub unavailable: u64,
}

/// The next replicas of the new ReplicaSet and of all old ones together.
pub fn step(desired: u64, bounds: Bounds, new: Side, old: Side) -> [u64; 2] {
    let most = desired + bounds.surge;
    let next_new = if old.replicas == 0 {
        desired
    } else {
        let room = most.saturating_sub(new.replicas + old.replicas);
        desired.min(new.replicas + room)
    };
    let least_ready = desired.saturating_sub(bounds.unavailable);
    // What is not ready serves nobody, so it goes first and at no cost.
    let ready_to_spare = (new.ready + old.ready).saturating_sub(least_ready);
    let unready = old.replicas - old.ready.min(old.replicas);
    let next_old = if new.replicas == 0 {
        old.replicas
    } else {
        old.replicas - (unready + ready_to_spare).min(old.replicas)
    };
    [next_new, next_old]
}

/// `25%` of the replicas, or a number; rounded up for the surge and down for what may be missing
/// (`ResolveFenceposts`).
fn bounds(deployment: &Value, desired: u64) -> Bounds {
    let given = &deployment["spec"]["strategy"]["rollingUpdate"];
    let share = |value: &Value, round_up: bool| {
        let text = value.as_str().unwrap_or("25%");
        let percent = text.trim_end_matches('%').parse::<u64>().unwrap_or(25);
        let shares = desired * percent + if round_up { 99 } else { 0 };
        value.as_u64().unwrap_or(shares / 100)
    };
    let surge = share(&given["maxSurge"], true);
    let unavailable = share(&given["maxUnavailable"], false);
    let neither = surge == 0 && unavailable == 0;
    Bounds {
        surge,
        unavailable: if neither { 1 } else { unavailable },
    }
}

pub(crate) fn reconcile(objects: &Objects) -> Result<()> {
    for deployment in objects.list(Resource::Deployments) {
        reconcile_one(objects, &deployment)?;
    }
    Ok(())
}

fn reconcile_one(objects: &Objects, deployment: &Value) -> Result<()> {
    let spec = &deployment["spec"];
    let desired = spec["replicas"].as_u64().unwrap_or(1);
    let hash = hash(&spec["template"]);
    let all = objects.list(Resource::ReplicaSets);
    let (new, old): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(|one| object::is_owned(one, deployment))
        .partition(|one| one["metadata"]["labels"][HASH] == *hash);
    let sides = [&new, &old].map(|sets| Side {
        replicas: sum(sets, |one| &one["spec"]["replicas"]),
        ready: sum(sets, |one| &one["status"]["readyReplicas"]),
    });
    let [next_new, next_old] = step(desired, bounds(deployment, desired), sides[0], sides[1]);
    match new.first() {
        None => objects.create(
            Resource::ReplicaSets,
            replica_set(deployment, &hash, next_new),
        )?,
        Some(set) => scale(objects, set, next_new)?,
    }
    let mut left = next_old;
    for set in &old {
        let replicas = set["spec"]["replicas"].as_u64().unwrap_or(0).min(left);
        left -= replicas;
        scale(objects, set, replicas)?;
    }
    let [new, old] = sides;
    let ready = new.ready + old.ready;
    let status = json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": sides.map(|side| side.replicas).iter().sum::<u64>(),
        "updatedReplicas": new.replicas, "readyReplicas": ready, "availableReplicas": ready,
        "conditions": [{"type": "Available", "status": if ready >= desired { "True" } else { "False" }}],
    });
    objects.change(Resource::Deployments, deployment, |new| {
        new["status"] = status
    })
}

fn sum<'a>(sets: &'a [Value], field: impl Fn(&'a Value) -> &'a Value) -> u64 {
    sets.iter().filter_map(|set| field(set).as_u64()).sum()
}

fn scale(objects: &Objects, set: &Value, replicas: u64) -> Result<()> {
    objects.change(Resource::ReplicaSets, set, |new| {
        new["spec"]["replicas"] = replicas.into();
    })
}

fn hash(template: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    format!("{:08x}", hasher.finish() as u32)
}

fn replica_set(deployment: &Value, hash: &str, replicas: u64) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH] = hash.into();
    let labels = template["metadata"]["labels"].clone();
    json!({
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)),
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels, "ownerReferences": object::owned_by(deployment),
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        "status": {"replicas": 0},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(replicas: u64, ready: u64) -> Side {
        Side { replicas, ready }
    }

    #[test]
    fn a_rollout_ends_at_the_new_replicas_and_never_has_too_few_or_too_many_pods() {
        let bounds = Bounds {
            surge: 1,
            unavailable: 0,
        };
        let (mut new, mut old) = (side(0, 0), side(4, 4));
        for _ in 0..20 {
            let [next_new, next_old] = step(4, bounds, new, old);
            assert!(next_new + next_old <= 5, "{new:?} {old:?}");
            old = side(next_old, next_old);
            assert!(new.ready + old.ready >= 4, "{new:?} {old:?}");
            new = side(next_new, new.replicas); // the pods of the step before are ready now
        }
        assert_eq!([new.ready, old.replicas], [4, 0]);
    }

    #[test]
    fn without_an_old_template_the_replicas_are_what_is_asked_for() {
        let bounds = Bounds {
            surge: 1,
            unavailable: 0,
        };
        assert_eq!(step(5, bounds, side(1, 1), side(0, 0)), [5, 0]);
        assert_eq!(step(1, bounds, side(5, 5), side(0, 0)), [1, 0]);
    }

    #[test]
    fn shares_round_up_for_more_and_down_for_fewer() {
        let read = |rolling: Value| {
            bounds(
                &json!({"spec": {"strategy": {"rollingUpdate": rolling}}}),
                5,
            )
        };
        let default = read(Value::Null);
        assert_eq!([default.surge, default.unavailable], [2, 1]);
        let none = read(json!({"maxSurge": 0, "maxUnavailable": "10%"}));
        assert_eq!([none.surge, none.unavailable], [0, 1]);
    }
}
