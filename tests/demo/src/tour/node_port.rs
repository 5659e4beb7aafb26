//! A Deployment behind a NodePort, scaled, replaced and deleted under requests.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use controllers::requests::Requests;
use controllers::scene::await_pods;
use testbed::patience::eventually;
use testbed::sockets::http;

use super::{Guide, PAUSE};

/// Gives the number of requests.
pub fn show(guide: &mut Guide<'_>) -> Result<u64> {
    let cluster = guide.cluster;
    guide.kubectl(&[
        "create",
        "deployment",
        "np-pods",
        "--image=web:1",
        "--port=80",
        "--replicas=2",
    ])?;
    guide.kubectl(&[
        "expose",
        "deployment",
        "np-pods",
        "--type=NodePort",
        "--name=np-svc-v2",
        "--port=80",
    ])?;
    await_pods(cluster, "np-pods", 2)?;
    guide.kubectl(&["get", "services"])?;

    let service = cluster
        .objects()
        .get(Resource::Services, "default", "np-svc-v2");
    let service = service.context("the Service is gone")?;
    let spec = &service["spec"];
    let node_port = u16::try_from(
        spec["ports"][0]["nodePort"]
            .as_u64()
            .context("no node port")?,
    )?;
    let cluster_ip: IpAddr = spec["clusterIP"].as_str().unwrap_or_default().parse()?;
    let client = &cluster.topology.client().netns;
    let visitor = &guide.visitor.netns;
    let nodes = cluster.topology.nodes.iter();
    let nodes: Vec<_> = nodes
        .map(|node| SocketAddr::new(node.host.ip.v4.into(), node_port))
        .collect();
    let inside = SocketAddr::new(cluster_ip, 80);
    guide.say("A client outside asks each node, a pod asks the ClusterIP; each answer names the pod and the client that it saw:")?;
    for target in &nodes {
        eventually("the NodePort answers", || {
            http::get(client, *target).map(drop)
        })?;
        guide.curl("outside", client, *target)?;
    }
    guide.curl("a pod  ", visitor, inside)?;

    guide.say("Now with requests all the time:")?;
    let ways = [(client, nodes[0]), (client, nodes[1]), (visitor, inside)];
    let requests = Requests::start(ways, PAUSE);
    for count in [4, 1, 3] {
        let replicas = format!("--replicas={count}");
        guide.kubectl(&["scale", "deployment", "np-pods", &replicas])?;
        await_pods(cluster, "np-pods", count)?;
    }
    guide.say("A new image replaces every pod, one after the other:")?;
    guide.kubectl(&["set", "image", "deployment/np-pods", "web=web:2"])?;
    eventually("every pod is a new one", || {
        let pods = cluster.objects().list(Resource::Pods);
        let is_new = |pod: &serde_json::Value| pod["spec"]["containers"][0]["image"] == "web:2";
        ensure!(
            pods.len() == 3 && pods.iter().all(is_new),
            "{} pods",
            pods.len()
        );
        Ok(())
    })?;
    guide.kubectl(&["get", "pods", "-o", "wide"])?;
    let tally = requests.stop()?;
    let pods = tally.by_pod.len();
    guide.say(&format!(
        "{} requests, 0 failed, answered by {pods} pods one after the other",
        tally.requests
    ))?;

    guide.kubectl(&["delete", "services", "np-svc-v2"])?;
    eventually("a deleted Service does not answer", || {
        ensure!(http::get(client, nodes[0]).is_err(), "it answers still");
        Ok(())
    })?;
    guide.say(&format!("http://{}/ answers no more", nodes[0]))?;
    guide.kubectl(&["delete", "deployment", "np-pods"])?;
    Ok(tally.requests)
}
