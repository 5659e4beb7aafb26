//! A load balancer that is a proxy, HAProxy outside of the cluster: it ends connections and tells of their clients in the PROXY
//! protocol's header.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use testbed::address::{Family, Pair};
use testbed::cluster::Cluster;
use testbed::patience::eventually;
use testbed::topology::Pod;

use crate::controller::{self, SHOP};
use crate::curl::Curl;
use crate::process::Process;
use crate::recipe::{self, Condition, Published};
use crate::site::{Place, Site};

/// Where the controllers want the header; the recipe's `targetPort`.
pub const PORT: u16 = 8082;

/// Of the Service, and so of the load balancer.
const SERVICE_PORT: u16 = 80;

pub fn rows(place: &Place) -> Vec<Trial> {
    vec![place.row(
        "a load balancer that is a proxy is not bypassed, and tells the client's address",
        told,
    )]
}

/// Publishes the recipe with its status; gives the load balancer's address.
pub fn publish(cluster: &Cluster, recipe: &[Value], pods: &[Pod]) -> Result<Pair> {
    let [service, status] = recipe else {
        anyhow::bail!("not a Service and its status: {recipe:?}");
    };
    let mut service = Published::of(service, cluster.vip("ingress").ip)?;
    service.object["status"] = status["status"].clone();
    let port = &service.object["spec"]["ports"][0];
    ensure!(
        port["targetPort"] == PORT && port["port"] == SERVICE_PORT,
        "{port}"
    );
    service.apply(&cluster.manifests)?;
    let pods: Vec<_> = pods.iter().map(|pod| (pod, Condition::Ready)).collect();
    service.apply_endpoints(&cluster.manifests, &pods)?;
    let ingress = &status["status"]["loadBalancer"]["ingress"];
    let at = Pair {
        v4: ingress[0]["ip"].as_str().context("an address")?.parse()?,
        v6: ingress[1]["ip"].as_str().context("an address")?.parse()?,
    };
    let neighbour = cluster.topology.neighbour.ip;
    ensure!(at == neighbour, "the load balancer is at {neighbour:?}");
    Ok(at)
}

/// Starts the load balancer, which leads to the node ports of both nodes.
pub fn balance(cluster: &Cluster, directory: PathBuf) -> Result<Process> {
    let recipe = recipe::block("Behind a load balancer that is a proxy")?;
    let node_port = &recipe["spec"]["ports"][0]["nodePort"];
    let node_port = u16::try_from(node_port.as_u64().context("a node port")?)?;
    let nodes = &cluster.topology.nodes;
    let targets: Vec<_> = nodes
        .iter()
        .flat_map(|node| Family::BOTH.map(|family| node.host.ip.of(family)))
        .map(|ip| SocketAddr::new(ip, node_port))
        .collect();
    let neighbour = &cluster.topology.neighbour;
    controller::load_balancer(&neighbour.netns, directory, SERVICE_PORT, &targets)
}

fn told(site: &Site) -> Result<()> {
    let balanced = site.balanced.context("a load balancer")?;
    let node = site.cluster.node(1);
    for family in Family::BOTH {
        let to = SocketAddr::new(balanced.of(family), SERVICE_PORT);
        for from in [
            site.client(),
            site.cluster.pod("c1"),
            &site.pods[0],
            &node.host,
        ] {
            let words = format!("{} asks the proxy at {to}", from.name);
            let curl = Curl::new(from, SHOP, to);
            // The load balancer asks both nodes by turns.
            let mut missing = vec!["i1", "i2"];
            eventually(&words, || {
                let reply = curl.get("/")?;
                let good = reply.status == 200 && reply.real()? == from.ip.of(family);
                if !good {
                    return Ok(Err(anyhow::anyhow!("{words}: {reply:?}")));
                }
                let controller = reply.field("ingress")?.to_owned();
                missing.retain(|name| *name != controller);
                ensure!(missing.is_empty(), "not {missing:?} yet");
                Ok(Ok(()))
            })??;
        }
    }
    Ok(())
}
