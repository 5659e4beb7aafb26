//! The controller beside MetalLB, other load balancers, bad objects; and its addresses in packets.

use anyhow::{Context, Result, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::agent::{Agent, binary};
use testbed::ask::await_answer;
use testbed::cluster::SERVICE_PORT;
use testbed::patience::eventually;
use testbed::sockets::Protocol;

use super::rig::{DEFAULT, POOLS, Rig, pool, pool_row};
use crate::world::{World, lone_row};

pub fn rows() -> Vec<Trial> {
    let few = || vec![("few", pool(&["192.168.10.1-192.168.10.3"]))];
    vec![
        pool_row(
            "MetalLB's controller is stood back for, and what it gave is kept",
            vec![],
            metallb,
        ),
        pool_row(
            "a class of its own is served beside MetalLB",
            few(),
            classes,
        ),
        pool_row(
            "addresses of no pool are left alone, and told",
            few(),
            foreign,
        ),
        pool_row(
            "a pool that is wrong costs itself, and keeps what was given of it",
            few(),
            bad_pool,
        ),
        pool_row("an address is told once", few(), told_once),
        lone_row(
            "balancer: a client reaches a pod by the address that the controller gave",
            1,
            packets,
        ),
    ]
}

fn deployment(replicas: u8, args: &[&str]) -> Value {
    json!({
        "kind": "Deployment",
        "metadata": {"name": "controller", "namespace": POOLS, "labels": {"app": "metallb", "component": "controller"}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "metallb"}},
            "template": {"metadata": {"labels": {"app": "metallb"}}, "spec": {"containers": [{"name": "controller", "args": args}]}},
        },
    })
}

fn metallb(rig: &Rig) -> Result<()> {
    rig.api().apply(&deployment(1, &["--port=7472"]))?;
    rig.await_said("standing back")?;
    rig.pools(&[("few", pool(&["192.168.10.1-192.168.10.3"]))])?;
    // As MetalLB gives it: not the first one.
    rig.service("old", json!({}))?;
    let path = format!("{}/old/status", Resource::Services.path(DEFAULT));
    let given = json!({
        "metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": "few"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.168.10.2"}]}},
    });
    let (code, answer) = rig.api().call("PATCH", &path, &given)?;
    ensure!(code == 200, "{answer}");
    rig.service("new", json!({}))?;
    rig.api().apply(&deployment(0, &["--port=7472"]))?;
    rig.await_said("MetalLB's controller runs no more")?;
    rig.await_has("new", &["192.168.10.1"])?;
    rig.await_has("old", &["192.168.10.2"])?;
    let all = rig.events()?;
    ensure!(
        all.iter().all(|event| event["regarding"]["name"] != "old"),
        "{all:#?}"
    );
    // And back: nothing moves, nothing is given.
    rig.api().apply(&deployment(1, &[]))?;
    eventually("it stands back again", || {
        let lines = rig.controllers()[0].lines();
        let times = lines
            .iter()
            .filter(|line| line.contains("standing back"))
            .count();
        ensure!(times == 2, "{times} times");
        Ok(())
    })?;
    rig.await_has("new", &["192.168.10.1"])?;
    rig.await_has("old", &["192.168.10.2"])
}

fn classes(rig: &Rig) -> Result<()> {
    rig.controllers().clear();
    rig.api().apply(&deployment(1, &[]))?;
    rig.start(&["--load-balancer-class", "portside.io/lb,other"])?;
    for (name, class) in [
        ("ours", json!("portside.io/lb")),
        ("others", json!("third")),
        ("none", Value::Null),
    ] {
        rig.service(name, json!({"spec": {"loadBalancerClass": class}}))?;
    }
    rig.await_has("ours", &["192.168.10.1"])?;
    for name in ["others", "none"] {
        ensure!(rig.has(name)?.is_empty(), "{name} has an address");
    }
    rig.start(&["--load-balancer-class", "portside.io/lb", "--without-class"])?;
    rig.controllers().remove(0);
    rig.await_said("standing back")
}

fn foreign(rig: &Rig) -> Result<()> {
    // A cloud's, of a service without a class; and one of another class, in the range of the pool.
    rig.service("cloud", json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}, "metadata": {"annotations": {"metallb.io/address-pool": "none"}}}))?;
    rig.service("theirs", json!({"spec": {"loadBalancerClass": "x"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.168.10.1"}]}}}))?;
    rig.await_event(
        "cloud",
        "AllocationFailed",
        "there is no IPAddressPool none",
    )?;
    rig.service("ours", json!({}))?;
    rig.await_has("ours", &["192.168.10.2"])?;
    rig.await_has("cloud", &["203.0.113.1"])?;
    rig.await_has("theirs", &["192.168.10.1"])
}

fn bad_pool(rig: &Rig) -> Result<()> {
    rig.service("one", json!({}))?;
    rig.await_has("one", &["192.168.10.1"])?;
    rig.pools(&[
        ("few", pool(&["192.168.10.1-elsewhere"])),
        ("good", pool(&["192.168.20.1/32"])),
        ("twice", pool(&["192.168.20.0/24"])),
    ])?;
    rig.await_event(
        "few",
        "PoolRefused",
        "spec.addresses[0]: \"elsewhere\" is not an IP address",
    )?;
    rig.await_event("twice", "PoolRefused", "spec.addresses[0]: 192.168.20.0-192.168.20.255 overlaps 192.168.20.1-192.168.20.1 of IPAddressPool good")?;
    rig.service("two", json!({}))?;
    rig.await_has("two", &["192.168.20.1"])?;
    rig.await_has("one", &["192.168.10.1"])?;
    // A controller that never saw it right keeps it, too.
    rig.controllers().clear();
    rig.start(&[])?;
    rig.await_round("mark")?;
    rig.await_has("one", &["192.168.10.1"])
}

fn told_once(rig: &Rig) -> Result<()> {
    rig.service("one", json!({}))?;
    let event = rig.await_event("one", "IPAllocated", "192.168.10.1 of IPAddressPool few")?;
    let uid = &rig.get(Resource::Services, DEFAULT, "one")?["metadata"]["uid"];
    ensure!(
        event["regarding"]["uid"] == *uid && event["type"] == "Normal",
        "{event:#}"
    );
    rig.service("wrong", json!({"spec": {"loadBalancerIP": "192.168.10"}}))?;
    let event = rig.await_event(
        "wrong",
        "AllocationFailed",
        "spec.loadBalancerIP: \"192.168.10\" is not an IP address",
    )?;
    ensure!(event["type"] == "Warning", "{event:#}");
    rig.patch("one", &json!({"metadata": {"labels": {"a": "b"}}}))?;
    rig.controllers().clear();
    rig.start(&[])?;
    rig.await_round("mark")?;
    let all = rig.events()?;
    let count = all
        .iter()
        .filter(|event| event["regarding"]["name"] == "one")
        .count();
    ensure!(count == 1, "{all:#?}");
    Ok(())
}

/// The address is in no manifest: it comes from the pool, and packets to it reach a pod.
fn packets(world: &World) -> Result<()> {
    world.cluster.start_agents()?;
    let router = &world.cluster.topology.router.netns;
    let mut command = router.command(binary().context("the agent's path is not set")?)?;
    let url = world.server.url();
    command.args([
        "controller",
        "--api-servers",
        &url,
        "--pool-namespace",
        POOLS,
        "--lease-namespace",
        POOLS,
    ]);
    let controller = Agent::of(command, "controller")?;
    world.api().apply(&json!({
        "kind": "IPAddressPool", "metadata": {"name": "public", "namespace": POOLS},
        "spec": pool(&["203.0.113.80/32", "2001:db8:113::80/128"]),
    }))?;
    let vip = world.cluster.vip("balanced");
    world.apply_endpoints(&vip, &vip.endpoints(&[world.cluster.pod("p1")]))?;
    let service = vip
        .service()
        .with("type", json!("LoadBalancer"))
        .with("ipFamilyPolicy", json!("RequireDualStack"));
    world.apply(&service)?;
    let path = format!("{}/{}", Resource::Services.path(DEFAULT), vip.name);
    eventually("the service has its addresses", || {
        let (_, object) = world.api().call("GET", &path, &Value::Null)?;
        let ingress = &object["status"]["loadBalancer"]["ingress"];
        ensure!(
            *ingress == json!([{"ip": "203.0.113.80"}, {"ip": "2001:db8:113::80"}]),
            "{ingress} {}",
            controller.log()
        );
        Ok(())
    })?;
    for family in Family::BOTH {
        let address: std::net::IpAddr = match family {
            Family::V4 => "203.0.113.80".parse()?,
            Family::V6 => "2001:db8:113::80".parse()?,
        };
        // As a network that knows where the address is.
        let node = world.cluster.node(1).host.ip.of(family);
        router.ip(&format!("route replace {address} via {node}\n"))?;
        for protocol in Protocol::BOTH {
            let target = std::net::SocketAddr::new(address, SERVICE_PORT);
            await_answer(
                world.cluster.topology.client(),
                protocol,
                target,
                |answer| answer.who() == Some("p1:8080"),
            )?;
        }
    }
    Ok(())
}
