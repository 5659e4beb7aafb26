//! Services of type LoadBalancer get their addresses from a pool, by Portside's controller.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use controllers::requests::Requests;
use controllers::scene::{await_pods, deployment};
use serde_json::Value;
use testbed::agent::{Agent, binary};
use testbed::patience::eventually;
use testbed::sockets::http;

use super::{Guide, PAUSE};

/// Of what the router sends to node1, as if it had been announced there.
const POOL: &str = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: public, namespace: default}
spec:
  addresses: [10.96.200.1-10.96.200.9]
";

const NAME: &str = "shop";

/// Gives the number of requests.
pub fn show(guide: &mut Guide<'_>) -> Result<u64> {
    let cluster = guide.cluster;
    guide.say("A pool of addresses, as MetalLB has them, and a controller that gives them out:")?;
    guide.apply(POOL)?;
    let mut command = cluster.topology.nodes[0]
        .netns()
        .command(binary().context("the agent's path is not set")?)?;
    command
        .args([
            "controller",
            "--pool-namespace",
            "default",
            "--lease-namespace",
            "default",
        ])
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig());
    let _controller = Agent::of(command, "controller")?;

    cluster.client().apply(&deployment(NAME, 2))?;
    guide.kubectl(&[
        "expose",
        "deployment",
        NAME,
        "--type=LoadBalancer",
        "--port=80",
    ])?;
    let service = || {
        let service = cluster.objects().get(Resource::Services, "default", NAME);
        service.context("the Service is gone")
    };
    let address: IpAddr = eventually("the Service has an address", || {
        let ingress = &service()?["status"]["loadBalancer"]["ingress"];
        let address = ingress[0]["ip"].as_str().context("it has none")?;
        Ok(address.parse()?)
    })?;
    guide.kubectl(&["get", "services", NAME])?;
    await_pods(cluster, NAME, 2)?;
    let client = &cluster.topology.client().netns;
    let target = SocketAddr::new(address, 80);
    eventually("the address answers", || {
        http::get(client, target).map(drop)
    })?;
    guide.curl("outside", client, target)?;
    guide.say("The address stays while the pods change; no device of a node has it:")?;
    let requests = Requests::start([(client, target)], PAUSE);
    guide.kubectl(&["scale", "deployment", NAME, "--replicas=4"])?;
    await_pods(cluster, NAME, 4)?;
    let tally = requests.stop()?;
    guide.say(&format!(
        "{} requests, 0 failed, answered by {} pods",
        tally.requests,
        tally.by_pod.len()
    ))?;
    guide.kubectl(&["delete", "service", NAME])?;
    guide.kubectl(&["delete", "deployment", NAME])?;
    eventually("its pods are gone", || {
        let pods: Vec<Value> = cluster.objects().list(Resource::Pods);
        ensure!(pods.is_empty(), "{} are left", pods.len());
        Ok(())
    })?;
    Ok(tally.requests)
}
