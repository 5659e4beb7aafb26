//! The demo's Service by way of an API server: what people do to a cluster with `kubectl`, and what requests see of it.
//!
//! ```text
//!  kubectl ──► API server (beside the router) ──► the agents of both nodes ──► packets
//! ```
//!
//! There are no controllers, so that EndpointSlices come from `kubectl`, too.

mod hands;

pub use hands::has_kubectl;

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::hands::Hands;
use super::scene::{AT_FIRST, Scene};
use super::traffic::Traffic;
use super::{GRACE, SCALE_FOR, heading, indent, interrupt, manifest, picture};
use api_server::resource::Resource;
use testbed::address::Family;
use testbed::manifests::{Endpoints, Service};
use testbed::patience::eventually;
use testbed::sockets::{Protocol, http};

/// Pods at each step of the scaling, by turns with `apply` and with `patch`.
const SCALES: [usize; 4] = [4, 1, 3, 2];

/// A second Service, made by `expose`, on the same pods.
const EXPOSED: &str = "np-exposed";
const EXPOSED_PORT: u16 = 8080;

/// Shows it on `out`; with `keep`, leaves the cluster up until Enter or a signal.
pub fn show(keep: bool, out: &mut dyn Write) -> Result<()> {
    heading(
        out,
        "Building a cluster of network namespaces with an API server",
    )?;
    let mut scene = Scene::build_on_api()?;
    writeln!(out, "{}", picture::draw(&scene))?;
    let hands = Hands::new(&scene)?;
    writeln!(out, "{}", hands.introduction(&scene))?;

    heading(out, "A Service and its endpoints")?;
    let service = Service::new(manifest::NAME, scene.cluster_ip)
        .node_port(
            manifest::PORT_NAME,
            Protocol::Tcp,
            manifest::PORT,
            manifest::NODE_PORT,
        )
        .with("selector", json!({"app": "np-pods"}));
    hands.apply(&scene, out, "service", &[service.object()])?;
    let pods = AT_FIRST;
    scene.serve(pods)?;
    hands.apply(
        &scene,
        out,
        "endpoints",
        &slices(&scene.endpoints(pods), manifest::NAME),
    )?;
    hands.get(&scene, out, "services,endpointslices")?;
    scene.await_endpoints(pods)?;

    heading(
        out,
        "Requests, by NodePort and by ClusterIP, while it changes",
    )?;
    let traffic = Traffic::start(&scene);
    thread::sleep(SCALE_FOR);
    writeln!(out, "  with {pods} pods: {}", traffic.since_last())?;
    for (number, pods) in SCALES.into_iter().enumerate() {
        interrupt::check()?;
        scene.serve(pods)?;
        let slices = slices(&scene.endpoints(pods), manifest::NAME);
        if number % 2 == 0 {
            hands.apply(&scene, out, "endpoints", &slices)?;
        } else {
            for slice in &slices {
                let change = json!({"endpoints": slice["endpoints"]});
                let name = slice["metadata"]["name"].as_str().unwrap_or_default();
                hands.patch_slice(&scene, out, name, &change)?;
            }
        }
        scene.await_endpoints(pods)?;
        thread::sleep(GRACE);
        scene.end_grace(pods);
        thread::sleep(SCALE_FOR);
        writeln!(out, "  scaled to {pods}: {}", traffic.since_last())?;
    }

    heading(out, "A second Service on the same pods, and its end")?;
    let ports = [EXPOSED_PORT, manifest::PORT];
    hands.expose(&scene, out, manifest::NAME, EXPOSED, ports)?;
    let targets = targets(&scene)?;
    // `expose` names no port of its own, and so the slices' has none.
    let endpoints = Endpoints::of(EXPOSED).port("", Protocol::Tcp, manifest::PORT);
    let endpoints = scene.first_pods(SCALES[SCALES.len() - 1], endpoints);
    hands.apply(&scene, out, "exposed", &slices(&endpoints, EXPOSED))?;
    hands.get(&scene, out, "services,endpointslices")?;
    for (way, target) in targets {
        let answer = eventually("the exposed Service answers", || {
            http::get(&scene.visitor.netns, target)
        })?;
        writeln!(out, "  {way:<30} http://{target:<24} {}", answer.trim_end())?;
    }
    hands.delete_service(&scene, out, EXPOSED)?;
    for (way, target) in targets {
        eventually("a deleted Service does not answer", || {
            ensure!(
                http::get(&scene.visitor.netns, target).is_err(),
                "{target} answers still"
            );
            Ok(())
        })?;
        writeln!(
            out,
            "  {way:<30} http://{target:<24} no answer, as it should be"
        )?;
    }
    hands.get(&scene, out, "services")?;

    let total = traffic.stop();
    writeln!(
        out,
        "  {} in all, through every change: {total}",
        manifest::NAME
    )?;
    ensure!(total.requests > 0, "no request was made");
    ensure!(
        total.failures.is_empty(),
        "requests failed: {:#?}",
        total.failures
    );

    heading(out, "What the agent of node1 says")?;
    for command in [["get", "services", "-A"], ["get", "backends", "-A"]] {
        writeln!(out, "  $ proxy-agent {}", command.join(" "))?;
        writeln!(out, "{}", indent(&scene.ask_agent(&command)?))?;
    }
    if keep {
        heading(out, "Left up for you")?;
        writeln!(out, "{}", picture::ways_in(&scene))?;
        interrupt::wait_for_enter();
    }
    heading(out, "Cleaning up")?;
    drop(scene);
    writeln!(
        out,
        "  every namespace, mount and process of the demo is gone"
    )?;
    writeln!(out, "\nDone: {} requests, 0 failed.", total.requests)?;
    Ok(())
}

/// One EndpointSlice for each family.
fn slices(endpoints: &Endpoints, service: &str) -> Vec<Value> {
    Family::BOTH
        .map(|family| endpoints.slice(&format!("{service}-{family}"), family))
        .into()
}

/// Where an exposed Service is reached from a pod: what the API server gave it.
fn targets(scene: &Scene) -> Result<[(&'static str, SocketAddr); 2]> {
    let path = format!("{}/{EXPOSED}", Resource::Services.path("default"));
    let (_, service) = hands::client(scene)?.call("GET", &path, &Value::Null)?;
    let spec = &service["spec"];
    let address = spec["clusterIP"].as_str().context("no clusterIP")?;
    let node_port = spec["ports"][0]["nodePort"]
        .as_u64()
        .context("no node port")?;
    let node = scene.topology.nodes[1].host.ip.v4;
    Ok([
        (
            "a pod -> ClusterIP",
            SocketAddr::new(address.parse()?, EXPOSED_PORT),
        ),
        (
            "a pod -> NodePort of node2",
            SocketAddr::new(node.into(), u16::try_from(node_port)?),
        ),
    ])
}
