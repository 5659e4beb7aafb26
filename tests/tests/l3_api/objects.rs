//! What is created, changed and deleted through the API shows in packets.

use anyhow::{Result, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::ask::{await_answer, dial};
use testbed::cluster::{OTHER_PORT, PORT, SERVICE_PORT, Vip, port_name};
use testbed::manifests::{Endpoints, Service};
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::topology::Host;

use crate::world::{SharedWorld, World, proxy_label, slice_name};

pub fn rows() -> Vec<Trial> {
    let world = SharedWorld::new(2);
    vec![
        world.row("a service and its slices let packets through", through),
        world.row("slices that come before their service count", slices_first),
        world.row("endpoints come and go with edits of slices", scaling),
        world.row("duplicates across slices are one endpoint", duplicates),
        world.row("ports are matched by name in each slice", named_ports),
        world.row("a label gives a service away and back", proxy_name),
        world.row("a malformed object costs itself alone", malformed),
        world.row(
            "an endpoint that no slice may name costs itself alone",
            refused,
        ),
        world.row("addresses move from a deleted service to a new one", moved),
        world.row("a deleted service refuses", deleted),
    ]
}

fn through(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let pods = [cluster.pod("p1"), cluster.pod("p2")];
    let vip = world.serve("through", &pods)?;
    for family in Family::BOTH {
        let clients: [(&Host, _); 4] = [
            (
                cluster.topology.client(),
                vip.on_node(cluster.node(2), family),
            ),
            (cluster.topology.client(), vip.on_cluster_ip(family)),
            (cluster.pod("c1"), vip.on_cluster_ip(family)),
            (&cluster.node(2).host, vip.on_cluster_ip(family)),
        ];
        for (client, target) in clients {
            for protocol in Protocol::BOTH {
                let served = |answer: &Answer| {
                    let who = answer.who();
                    who == Some("p1:8080") || who == Some("p2:8080")
                };
                await_answer(client, protocol, target, served)?;
            }
        }
    }
    Ok(())
}

fn slices_first(world: &World) -> Result<()> {
    let vip = world.cluster.vip("slices-first");
    world.apply_endpoints(&vip, &vip.endpoints(&[world.cluster.pod("p1")]))?;
    // One that comes later is programmed: so the agents know of the slices.
    world.serve("behind-slices", &[world.cluster.pod("p2")])?;
    world.await_on_nodes(&vip, |answer| *answer == Answer::Refused)?;
    world.apply(&vip.service())?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1:8080"))
}

fn scaling(world: &World) -> Result<()> {
    let pods = ["p1", "p1b", "p2", "p2b"].map(|name| world.cluster.pod(name));
    let vip = world.serve("scaled", &pods[..1])?;
    for (from, to) in [(0, 4), (3, 4), (1, 2), (0, 0), (2, 3)] {
        let endpoints = &pods[from..to];
        world.apply_endpoints(&vip, &vip.endpoints(endpoints))?;
        match endpoints.last() {
            None => world.await_on_nodes(&vip, |answer| *answer == Answer::Refused)?,
            Some(last) => {
                let last = format!("{}:{PORT}", last.name);
                world.await_on_nodes(&vip, |answer| answer.who() == Some(&last))?;
            }
        }
        let known: Vec<_> = endpoints
            .iter()
            .map(|pod| format!("{}:{PORT}", pod.name))
            .collect();
        // An endpoint that stays answers before those that go are gone.
        eventually("only the endpoints answer", || {
            for _ in 0..8 {
                let target = vip.on_node(world.cluster.node(1), Family::V6);
                let answer = dial(world.cluster.topology.client(), Protocol::Tcp, target).ask();
                let is_known = |who: &str| known.iter().any(|one| one == who);
                ensure!(
                    answer.who().map_or(known.is_empty(), is_known),
                    "{answer}, not of {known:?}"
                );
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A second slice of a service, which nobody else edits.
fn second_slice(endpoints: &Endpoints, service: &str, family: Family) -> Value {
    endpoints.slice(&format!("{service}-second-{family}"), family)
}

fn duplicates(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let [p1, p2] = ["p1", "p2"].map(|name| cluster.pod(name));
    let vip = world.serve("duplicated", &[p1])?;
    for family in Family::BOTH {
        let mut slice = second_slice(&vip.endpoints(&[p1, p2]), &vip.name, family);
        // The other slice has it ready, and ready wins.
        slice["endpoints"][0]["conditions"] = json!({"ready": false});
        world.api().apply(&slice)?;
    }
    for who in ["p2:8080", "p1:8080"] {
        world.await_on_nodes(&vip, |answer| answer.who() == Some(who))?;
    }
    // Each of the two is one endpoint in each family and protocol.
    has_eight_backends(world, &vip.name)?;
    // Out of the one slice, and not yet out of the other, where it is not ready.
    world.apply_endpoints(&vip, &vip.no_endpoints())?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p2:8080"))?;
    for family in Family::BOTH {
        let slice = second_slice(&vip.endpoints(&[p1]), &vip.name, family);
        world.api().apply(&slice)?;
    }
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1:8080"))
}

/// The lines of `proxy-agent get backends` on the first node for a service.
fn backends(world: &World, service: &str) -> Result<Vec<String>> {
    let said = testbed::agent::ask(world.cluster.node(1), &["get", "backends", "-A"])?;
    let of_service = |line: &&str| line.split_whitespace().nth(1) == Some(service);
    Ok(said.lines().filter(of_service).map(str::to_owned).collect())
}

/// Waits for them: the names of services are written a little after the maps.
fn has_eight_backends(world: &World, service: &str) -> Result<()> {
    eventually("the command lists eight backends", || {
        let listed = backends(world, service)?;
        ensure!(listed.len() == 8, "{listed:#?}");
        Ok(())
    })
}

fn named_ports(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let vip = cluster.vip("named");
    let service =
        Protocol::BOTH
            .into_iter()
            .fold(Service::new(&vip.name, vip.ip), |service, protocol| {
                service.node_port(port_name(protocol), protocol, SERVICE_PORT, vip.node_port)
            });
    let second = |family, port, other| {
        let endpoints =
            Protocol::BOTH
                .into_iter()
                .fold(Endpoints::of(&vip.name), |all, protocol| {
                    let name = port_name(protocol);
                    all.port(name, protocol, port)
                        .port(&format!("{name}-other"), protocol, other)
                });
        second_slice(&endpoints.pod(world.cluster.pod("p1b")), &vip.name, family)
    };
    world.apply_endpoints(&vip, &vip.endpoints(&[cluster.pod("p1")]))?;
    for family in Family::BOTH {
        world.api().apply(&second(family, OTHER_PORT, PORT))?;
    }
    world.apply(&service)?;
    for who in ["p1:8080", "p1b:9090"] {
        world.await_on_nodes(&vip, |answer| answer.who() == Some(who))?;
    }
    // The names change places.
    for family in Family::BOTH {
        world.api().apply(&second(family, PORT, OTHER_PORT))?;
    }
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1b:8080"))
}

fn proxy_name(world: &World) -> Result<()> {
    let vip = world.serve("given-away", &[world.cluster.pod("p2")])?;
    let label = |proxy| {
        world
            .api()
            .patch(Resource::Services, &vip.name, &proxy_label(proxy))
    };
    label(Some("another"))?;
    world.await_on_nodes(&vip, |answer| *answer == Answer::Refused)?;
    label(None)?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p2:8080"))
}

fn malformed(world: &World) -> Result<()> {
    let vip = world.serve("beside-malformed", &[world.cluster.pod("p1")])?;
    let script =
        "malformed services/default/bad-service\nmalformed endpointslices/default/bad-slice";
    world.server.script(script)?;
    world.await_said(&["Service default/bad-service", "spec", "left out"])?;
    world.await_said(&["EndpointSlice default/bad-slice", "left out"])?;
    // A good one gets worse, and stays as it was.
    for family in Family::BOTH {
        let mut slice = vip
            .endpoints(&[world.cluster.pod("p2")])
            .slice(&slice_name(&vip, family), family);
        slice["ports"][1]["port"] = json!("eighty");
        world.api().apply(&slice)?;
        let name = format!("EndpointSlice default/{}", slice_name(&vip, family));
        world.await_said(&[&name, "ports[1].port", "stays as it was"])?;
    }
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1:8080"))?;
    world.apply_endpoints(&vip, &vip.endpoints(&[world.cluster.pod("p2b")]))?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p2b:8080"))
}

/// By a slice, whoever may write one would reach into nodes (CVE-2021-25740 and its kin).
fn refused(world: &World) -> Result<()> {
    let vip = world.serve("refusing", &[world.cluster.pod("p1")])?;
    for (family, addresses) in [
        (Family::V4, ["127.0.0.1", "169.254.169.254"]),
        (Family::V6, ["::1", "fe80::1"]),
    ] {
        let mut slice = second_slice(
            &vip.endpoints(&[world.cluster.pod("p2")]),
            &vip.name,
            family,
        );
        let endpoints = slice["endpoints"].as_array_mut().into_iter();
        endpoints.for_each(|all| all.extend(addresses.map(|one| json!({"addresses": [one]}))));
        world.api().apply(&slice)?;
        for address in addresses {
            let object = format!("EndpointSlice default/{}-second-{family}", vip.name);
            world.await_said(&[&object, &format!("endpoint {address} is not used")])?;
        }
    }
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p2:8080"))?;
    // Both pods in each family and protocol, and nobody else.
    has_eight_backends(world, &vip.name)
}

fn moved(world: &World) -> Result<()> {
    let old = world.serve("old-owner", &[world.cluster.pod("p1")])?;
    world.api().delete(Resource::Services, &old.name)?;
    let new = Vip {
        name: format!("{}-heir", old.name),
        ..old
    };
    world.apply(&new.service())?;
    world.apply_endpoints(&new, &new.endpoints(&[world.cluster.pod("p2")]))?;
    world.await_on_nodes(&new, |answer| answer.who() == Some("p2:8080"))
}

fn deleted(world: &World) -> Result<()> {
    let vip = world.serve("deleted", &[world.cluster.pod("p1b")])?;
    world.api().delete(Resource::Services, &vip.name)?;
    world.await_on_nodes(&vip, |answer| *answer == Answer::Refused)
}
