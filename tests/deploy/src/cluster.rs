//! Whether the objects of a release fit each other.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    agent, controller,
    objects::{Object, of_kind, the},
};

/// Everything that holds of a release of the agent, whatever its values.
pub fn check(objects: &[Object]) -> Result<()> {
    for object in objects {
        object.is_as_the_api_has_it()?;
    }
    let names: BTreeSet<_> = objects
        .iter()
        .map(|object| (object.kind(), object.namespace(), object.name()))
        .collect();
    ensure!(names.len() == objects.len(), "an object stands twice");
    for object in objects {
        let scope = object.namespace().is_some();
        let cluster_wide = object.kind().starts_with("ClusterRole");
        ensure!(scope != cluster_wide, "{object}: namespace");
    }
    let (of_controller, objects): (Vec<_>, Vec<_>) =
        objects.iter().cloned().partition(controller::is_its);
    let objects = &objects[..];
    let daemon_set = the(objects, "DaemonSet")?;
    agent::check(daemon_set)?;
    let labels = daemon_set.at("spec/template/metadata/labels");
    selects(daemon_set.at("spec/selector/matchLabels"), labels)?;
    controller::check(&of_controller, daemon_set)?;
    account(objects, daemon_set)?;
    for monitor in of_kind(objects, "PodMonitor") {
        selects(monitor.at("spec/selector/matchLabels"), labels)?;
        let of = monitor.at("spec/namespaceSelector/matchNames");
        ensure!(*of == json!([daemon_set.namespace()]), "it looks in {of}");
        let ports = monitor.at("spec/podMetricsEndpoints").as_array();
        let port = &ports.context("no endpoint")?[0]["port"];
        ensure!(port == "metrics", "it asks {port}");
        let at = agent::metrics_address(daemon_set)?.context("no metrics are served")?;
        ensure!(!at.ip().is_loopback(), "nobody else reaches {at}");
    }
    Ok(())
}

pub fn selects(selector: &Value, labels: &Value) -> Result<()> {
    let selector = selector.as_object().context("no selector")?;
    ensure!(!selector.is_empty(), "it selects everything");
    for (label, value) in selector {
        ensure!(
            labels.get(label) == Some(value),
            "{label}={value} is not among {labels}"
        );
    }
    Ok(())
}

/// The pod's account is the one that the role is bound to.
fn account(objects: &[Object], daemon_set: &Object) -> Result<()> {
    let account = daemon_set.at("spec/template/spec/serviceAccountName");
    for made in of_kind(objects, "ServiceAccount") {
        ensure!(*account == made.name(), "{made} is not that of the pod");
        ensure!(made.namespace() == daemon_set.namespace(), "{made}");
    }
    for binding in of_kind(objects, "ClusterRoleBinding") {
        let role = the(objects, "ClusterRole")?;
        ensure!(*binding.at("roleRef/name") == role.name(), "{binding}");
        let subject = json!([{
            "kind": "ServiceAccount", "name": account, "namespace": daemon_set.namespace(),
        }]);
        ensure!(*binding.at("subjects") == subject, "{binding}");
        // What the agent asks for, less what it is told not to.
        let parsed = agent::Container::of(daemon_set)?.parsed()?;
        let events = parsed.run_args().is_some_and(|args| args.events);
        let mut asked: BTreeSet<(String, String, String)> = BTreeSet::new();
        for access in proxy_agent::source::access::ACCESS {
            if access.resource == "events" && !events {
                continue;
            }
            for verb in access.verbs {
                asked.insert((
                    access.group.to_owned(),
                    access.resource.to_owned(),
                    (*verb).to_owned(),
                ));
            }
        }
        ensure!(granted(role)? == asked, "{role} grants something else");
    }
    Ok(())
}

pub fn granted(role: &Object) -> Result<BTreeSet<(String, String, String)>> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|text| Some(text.as_str()?.to_owned()))
            .collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role.at("rules").as_array().context("no rules")? {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    granted.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    Ok(granted)
}
