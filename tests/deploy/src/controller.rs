//! The Deployment that gives addresses to load balancers: whether its container is a controller, with the rights for what it asks.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use proxy_agent::{
    balancer::controller::access::{EVERYWHERE, OF_LEASE, OF_POOLS},
    cli::Cli,
    source::access::Access,
};
use serde_json::json;

use crate::{
    cluster::{granted, selects},
    objects::{Object, of_kind, the},
};

/// Is the object the controller's?
pub fn is_its(object: &Object) -> bool {
    let name = object
        .at("metadata/labels/app.kubernetes.io~1name")
        .as_str();
    name.is_some_and(|name| name.ends_with("-controller"))
}

/// Everything that holds of its objects; there may be none.
pub fn check(objects: &[Object], daemon_set: &Object) -> Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    let deployment = the(objects, "Deployment")?;
    let labels = deployment.at("spec/template/metadata/labels");
    selects(deployment.at("spec/selector/matchLabels"), labels)?;
    ensure!(
        selects(daemon_set.at("spec/selector/matchLabels"), labels).is_err(),
        "the DaemonSet selects its pods"
    );
    let pod = deployment.at("spec/template/spec");
    ensure!(
        pod["hostNetwork"].is_null() && pod["volumes"].is_null(),
        "it is given parts of the node"
    );
    ensure!(pod["securityContext"]["runAsNonRoot"] == true, "it is root");
    let container = &pod["containers"][0];
    ensure!(
        container["securityContext"]["capabilities"] == json!({"drop": ["ALL"]}),
        "{container}"
    );
    let args = container["args"].as_array().context("no args")?;
    let line = args
        .iter()
        .map(|argument| argument.as_str().unwrap_or_default());
    let parsed = Cli::try_parse_from(std::iter::once("proxy-agent").chain(line.clone()))?;
    let args = parsed.controller_args().context("it runs something else")?;
    ensure!(container["env"][0]["name"] == "POD_NAME", "{container}");
    let account = the(objects, "ServiceAccount")?;
    ensure!(pod["serviceAccountName"] == account.name(), "{account}");
    let everywhere: Vec<_> = EVERYWHERE
        .into_iter()
        .filter(|one| one.resource != "events" || args.events)
        .collect();
    let role = the(objects, "ClusterRole")?;
    ensure!(
        granted(role)? == words(&everywhere),
        "{role} grants something else"
    );
    for (kind, access, namespace) in [
        ("pools", &OF_POOLS[..], args.pool_namespace.as_deref()),
        ("lease", &OF_LEASE, args.lease_namespace.as_deref()),
    ] {
        let mut roles = of_kind(objects, "Role").filter(|role| role.name().ends_with(kind));
        let role = roles
            .next()
            .with_context(|| format!("no role for {kind}"))?;
        ensure!(
            granted(role)? == words(access),
            "{role} grants something else"
        );
        ensure!(
            role.namespace() == namespace,
            "{role} is in {:?}, asked for is {namespace:?}",
            role.namespace()
        );
    }
    let bindings = of_kind(objects, "RoleBinding").chain(of_kind(objects, "ClusterRoleBinding"));
    for binding in bindings {
        ensure!(*binding.at("roleRef/name") == binding.name(), "{binding}");
        let subject = json!([{"kind": "ServiceAccount", "name": account.name(), "namespace": deployment.namespace()}]);
        ensure!(*binding.at("subjects") == subject, "{binding}");
    }
    Ok(())
}

fn words(all: &[Access]) -> BTreeSet<(String, String, String)> {
    let one = |access: &Access| {
        let (group, resource) = (access.group.to_owned(), access.resource.to_owned());
        let verbs = access.verbs.iter();
        verbs
            .map(move |verb| (group.clone(), resource.clone(), (*verb).to_owned()))
            .collect::<Vec<_>>()
    };
    all.iter().flat_map(one).collect()
}
