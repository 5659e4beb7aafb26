//! Objects that rows apply, and what they wait for.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::netns::Netns;
use testbed::patience::eventually;
use testbed::topology::Pod;

use super::cluster::LiveCluster;

/// A Deployment of web servers.
pub fn deployment(name: &str, replicas: u64) -> Value {
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

/// A Service of type NodePort on the pods of the Deployment of the same name.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "NodePort", "selector": {"app": name}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"port": 80, "targetPort": 80}],
        },
    })
}

/// The client and the visitor ask by NodePort and by ClusterIP, in every family that the Service has.
pub fn ways<'a>(
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
pub fn await_pods(cluster: &LiveCluster, deployment: &str, count: u64) -> Result<()> {
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
