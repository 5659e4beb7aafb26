//! Whom the controllers and the applications see, and the controllers' own address from within.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::patience::eventually;

use crate::site::{Place, Site};

pub fn rows(place: &Place) -> Vec<Trial> {
    vec![
        place.row("the controller sees the client's address", real),
        place.row("the application sees the controller's address", peer),
        place.row(
            "a controller and its node reach the load balancer's address",
            within,
        ),
    ]
}

/// Kept where the controller is on the node that is asked, whatever the policy; else the node's that is asked.
fn real(site: &Site) -> Result<()> {
    for (way, family, words) in site.asked() {
        let client = site.client();
        let mut missing = match way.name {
            "node ports" => vec!["i1", "i2"],
            "a load balancer's address" => vec!["i1"],
            "the host's network" => vec!["node1"],
            _ => vec!["i3"],
        };
        let mut asked = 0;
        eventually(&format!("{words}: all controllers are asked"), || {
            let reply = site.curl(client, way, family).get("/")?;
            asked += 1;
            let controller = reply.field("ingress")?.to_owned();
            missing.retain(|name| *name != controller);
            let elsewhere = !way.keeps_client && controller == "i2";
            let wanted = if elsewhere {
                site.cluster.node(1).host.ip.of(family)
            } else {
                client.ip.of(family)
            };
            if reply.real()? != wanted {
                // To ask again would hide it.
                return Ok(Err(anyhow::anyhow!("{words}: not {wanted}: {reply:?}")));
            }
            ensure!(missing.is_empty(), "not {missing:?} in {asked} requests");
            Ok(Ok(()))
        })??;
    }
    Ok(())
}

fn peer(site: &Site) -> Result<()> {
    for (way, family, words) in site.asked() {
        for _ in 0..4 {
            let reply = site.curl(site.client(), way, family).get("/")?;
            let wanted = match reply.field("ingress")? {
                "node1" => site.cluster.node(1).host.ip,
                name => {
                    let pod = site.pods.iter().find(|pod| pod.name == name);
                    pod.with_context(|| format!("no pod {name}"))?.ip
                }
            };
            ensure!(
                reply.peer()? == wanted.of(family),
                "{words}: not {wanted:?}: {reply:?}"
            );
        }
    }
    Ok(())
}

/// From a pod that is a backend of the address, itself and the other node's pod among the answers, and from its node.
fn within(site: &Site) -> Result<()> {
    let way = site
        .ways
        .iter()
        .find(|way| way.name == "a load balancer's address");
    let way = way.context("no such way")?;
    let node = site.cluster.node(1);
    for (way, family) in [
        (way, testbed::address::Family::V4),
        (way, testbed::address::Family::V6),
    ] {
        for from in [&*site.pods[0], &node.host] {
            let to: SocketAddr = way.http(family);
            let mut missing = vec!["i1", "i2"];
            let words = format!("{} asks {to}", from.name);
            eventually(&words, || {
                let reply = site.curl(from, way, family).get("/")?;
                let controller = reply.field("ingress")?.to_owned();
                missing.retain(|name| *name != controller);
                // A pod that serves itself sees its node, since it takes no packets from its own address.
                let is_itself = controller == from.name;
                let real = reply.real()?;
                let good = if is_itself || from.name == node.name() {
                    node.owns(real)
                } else {
                    real == from.ip.of(family)
                };
                if !good {
                    return Ok(Err(anyhow::anyhow!("{words}: {reply:?}")));
                }
                ensure!(missing.is_empty(), "not {missing:?} yet");
                Ok(Ok(()))
            })??;
        }
    }
    Ok(())
}
