//! Objects that ask for more than there is room for cost themselves: another tenant's traffic and changes go on, the probes say "full" and
//! not "stuck", the log is a line, and with the object goes all that it did. And tables that are too small grow under traffic.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::agent::{self, Agent};
use testbed::cli::{self, Ran};
use testbed::patience::{eventually, eventually_within};
use testbed::sockets::http;
use testbed::{pinned, topology::Node};

use crate::traffic::{self, Kept, Served};
use crate::world::{ARRIVES_WITHIN, World, lone_row};

/// The tenant who asks for too much.
const NAMESPACE: &str = "hostile";
const NAME: &str = "greedy";

/// How often the hostile object changes while another tenant's does.
const CHANGES: u16 = 20;
/// All that the agent may say about it.
const LOG_BYTES: usize = 32 << 10;

pub fn rows() -> Vec<Trial> {
    let hostile = |what: &str, test| lone_row(&format!("{what} cost only their Service"), 1, test);
    vec![
        hostile("520 addresses at 520 ports", |world| {
            // With the ClusterIP 521 at each port, and 16,384 is what one may have.
            let lacks = BTreeMap::from([("ports", 520 - 31)]);
            outlive(world, &lacks, |n| vec![addresses(n)])
        }),
        hostile("300 source ranges at 300 ports", |world| {
            let lacks = BTreeMap::from([("ports", 300 - 54)]);
            outlive(world, &lacks, |n| vec![ranges(n)])
        }),
        hostile("1,000 endpoints at 100 ports", |world| {
            let lacks = BTreeMap::from([("endpoints", 100_000 - 65_536)]);
            outlive(world, &lacks, endpoints)
        }),
        hostile("65,535 ports", |world| {
            let lacks = BTreeMap::from([("ports", 65_535 - 4096)]);
            outlive(world, &lacks, |n| vec![ports(n)])
        }),
        lone_row(
            "tables that are too small grow while no request fails",
            2,
            growth,
        ),
    ]
}

type Object = (Resource, Value);

fn service(spec: Value, status: Value) -> Object {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": spec,
        "status": status,
    });
    (Resource::Services, object)
}

/// `n` ports from `first` on.
fn some_ports(first: u16, n: u16) -> Vec<Value> {
    let port =
        |number: u16| json!({"name": format!("p{number}"), "protocol": "TCP", "port": number});
    (0..n).map(|index| port(first + index)).collect()
}

/// `change` makes it another object.
fn addresses(change: u16) -> Object {
    let external: Vec<_> = (0..520)
        .map(|n| format!("203.0.{}.{}", n / 250, 1 + n % 250))
        .collect();
    let spec = json!({"clusterIP": "10.96.200.1", "externalIPs": external, "ports": some_ports(1 + change, 520)});
    service(spec, json!({}))
}

fn ranges(change: u16) -> Object {
    let ranges: Vec<_> = (0..300)
        .map(|n| format!("100.{}.{}.0/24", n / 250, n % 250))
        .collect();
    service(
        json!({
            "type": "LoadBalancer",
            "clusterIP": "10.96.200.1",
            "loadBalancerSourceRanges": ranges,
            "allocateLoadBalancerNodePorts": false,
            "ports": some_ports(1 + change, 300),
        }),
        json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}),
    )
}

fn ports(change: u16) -> Object {
    // What the bounds leave out changes nothing.
    let mut ports = some_ports(1, 65_535);
    ports.swap(0, usize::from(change));
    service(
        json!({"clusterIP": "10.96.200.1", "ports": ports}),
        json!({}),
    )
}

fn endpoints(change: u16) -> Vec<Object> {
    let service = service(
        json!({"clusterIP": "10.96.200.1", "ports": some_ports(1, 100)}),
        json!({}),
    );
    let endpoint = |n: u16| {
        let [high, low] = (n + change).to_be_bytes();
        json!({"addresses": [format!("10.200.{high}.{low}")]})
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": "IPv4",
        "ports": some_ports(1, 100),
        "endpoints": (0..1000).map(endpoint).collect::<Vec<_>>(),
    });
    vec![service, (Resource::EndpointSlices, slice)]
}

fn outlive(
    world: &World,
    lacks: &BTreeMap<&str, u64>,
    objects: impl Fn(u16) -> Vec<Object>,
) -> Result<()> {
    let cluster = &world.cluster;
    let node = cluster.node(1);
    let launch = || cluster.launch(node).with_default_tables();
    cluster.start_agent(&launch())?;
    let pods = ["p1", "p1b"].map(|name| cluster.pod(name));
    let served = Served::start(world, &pods, &pods[..1])?;
    let mut kept = Kept::open(cluster, &served)?;
    let put = |change| {
        for (resource, object) in objects(change) {
            world.server.put(resource, NAMESPACE, NAME, object);
        }
    };
    let (count, ()) = traffic::during(cluster, &served, || {
        put(0);
        is_full(node, lacks)?;
        for change in 1..=CHANGES {
            put(change);
            if change % 5 == 0 {
                change_arrives(world, &served, usize::from(change / 5 % 2))?;
                is_alive(node)?;
            }
        }
        is_full(node, lacks)?;
        kept.stay().context("beside the hostile object")?;
        let said: usize = log(world).iter().map(String::len).sum();
        ensure!(said < LOG_BYTES, "{said} bytes: {:#?}", log(world));
        let lines = log(world);
        let told =
            |line: &&String| line.contains("no room for all of 1 Services") && line.contains(NAME);
        ensure!(lines.iter().filter(told).count() >= 1, "{lines:#?}");
        // The next agent has the same.
        cluster.kill_agents();
        cluster.start_agent(&launch())?;
        is_full(node, lacks)?;
        kept.stay().context("after a restart")?;
        for (resource, _) in objects(0) {
            let path = format!("{}/{NAME}", resource.path(NAMESPACE));
            let (code, answer) = world.api().call("DELETE", &path, &Value::Null)?;
            ensure!(code == 200, "{code}: {answer}");
        }
        is_whole_again(node)?;
        change_arrives(world, &served, 1)?;
        world.await_said(&["there is room for all Services again"])
    })?;
    kept.stay_over_tcp()?;
    eprintln!("beside {lacks:?} too much: {count}");
    Ok(())
}

fn log(world: &World) -> Vec<String> {
    world
        .cluster
        .agents()
        .iter()
        .flat_map(Agent::lines)
        .collect()
}

/// The other tenant's endpoint is replaced, on the wire.
fn change_arrives(world: &World, served: &Served, to: usize) -> Result<()> {
    let pods = ["p1", "p1b"].map(|name| world.cluster.pod(name));
    served.move_to(world, &pods[to..=to])?;
    let who = format!("{}:8080", pods[to].name);
    world.await_on_nodes(&served.echo, |answer| answer.who() == Some(&who))
}

fn probe(node: &Node, path: &str) -> Result<(u16, String)> {
    let answer = http::fetch(node.netns(), (node.host.ip.v4, 10256).into(), path)?;
    Ok((answer.status, answer.body))
}

fn is_alive(node: &Node) -> Result<()> {
    for path in ["/livez", "/healthz"] {
        let (status, body) = probe(node, path)?;
        ensure!(status == 200, "{path}: {status} {body}");
    }
    Ok(())
}

fn metrics(node: &Node) -> Result<String> {
    let at = ([127, 0, 0, 1], 10249).into();
    Ok(http::fetch(node.netns(), at, "/metrics")?.body)
}

/// Everyone who asks is told what is left out, and none of them that the agent should be restarted.
fn is_full(node: &Node, lacks: &BTreeMap<&str, u64>) -> Result<()> {
    let words: Vec<_> = lacks
        .iter()
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    let words = format!("{NAMESPACE}/{NAME} without {}", words.join(", "));
    eventually_within(ARRIVES_WITHIN, "what is left out is told", || {
        let (status, body) = probe(node, "/readyz")?;
        ensure!(
            status == 200 && body.starts_with("ok; ") && body.contains(&words),
            "{status} {body}, not {words}"
        );
        Ok(())
    })?;
    is_alive(node)?;
    let text = metrics(node)?;
    for line in lacks.iter().map(|(what, n)| {
        format!("portside_service_left_out{{service_namespace=\"{NAMESPACE}\",service_name=\"{NAME}\",what=\"{what}\"}} {n}")
    }) {
        ensure!(text.contains(&line), "no {line}");
    }
    ensure!(
        text.contains("portside_services_left_out 1\n"),
        "not counted"
    );
    let listed = agent::ask(node, &["get", "left-out", "-A"])?;
    let row = listed.lines().find(|line| line.starts_with(NAMESPACE));
    let row = row.with_context(|| format!("not listed: {listed}"))?;
    for number in lacks.values().map(u64::to_string) {
        ensure!(row.split_whitespace().any(|cell| cell == number), "{row}");
    }
    let Ran { code, out, .. } = cli::run(node, &["status"])?;
    let says = format!("no room for all of 1 Services: {NAMESPACE}/{NAME} without");
    ensure!(code == Some(2) && out.contains(&says), "{code:?}: {out}");
    Ok(())
}

fn is_whole_again(node: &Node) -> Result<()> {
    eventually_within(ARRIVES_WITHIN, "nothing is left out", || {
        let (status, body) = probe(node, "/readyz")?;
        ensure!(status == 200 && body == "ok", "{status} {body}");
        let text = metrics(node)?;
        ensure!(
            text.contains("portside_services_left_out 0\n"),
            "counted still"
        );
        let image = proxy_agent::datapath::PinDir::new(&node.bpffs)
            .open_maps()?
            .image()?;
        let left = image.frontends.len() + image.ranges.len();
        ensure!(left < 100, "{left} entries are left");
        Ok(())
    })
}

/// More endpoints than the tables begin with, and more than they grow to at first.
fn growth(world: &World) -> Result<()> {
    const ENDPOINTS: u16 = 9000;
    let cluster = &world.cluster;
    let launch = |node| cluster.launch(node).with_room_for(32_768, 1024);
    for number in [1, 2] {
        let agent = Agent::begin(&launch(cluster.node(number)))?;
        cluster.agents().push(agent);
    }
    for agent in cluster.agents().iter() {
        agent.wait_until_ready()?;
    }
    let pods = ["p1", "p2", "p1b", "p2b"].map(|name| cluster.pod(name));
    let served = Served::start(world, &pods, &pods[..2])?;
    let mut kept = Kept::open(cluster, &served)?;
    let before: Vec<_> = cluster
        .topology
        .nodes
        .iter()
        .map(pinned::Ids::of)
        .collect::<Result<_>>()?;
    let room = |node: &Node| Ok::<_, anyhow::Error>(pinned::maps(node)?["BACKENDS_4"].1);
    ensure!(
        room(cluster.node(1))? == 4096,
        "the tables do not begin small"
    );
    let (count, ()) = traffic::during(cluster, &served, || {
        let endpoint = |n: u16| {
            let [high, low] = n.to_be_bytes();
            json!({"addresses": [format!("10.200.{high}.{low}")]})
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "large"},
            "spec": {"clusterIP": "10.96.200.1", "ports": [{"port": 80}]},
        });
        world
            .server
            .put(Resource::Services, "default", "large", object);
        for slice in 0..ENDPOINTS / 1000 {
            let name = format!("large-{slice}");
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "large"}},
                "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": (0..1000).map(|n| endpoint(slice * 1000 + n)).collect::<Vec<_>>(),
            });
            world
                .server
                .put(Resource::EndpointSlices, "default", &name, object);
        }
        for node in &cluster.topology.nodes {
            eventually("all endpoints are in the maps", || {
                let image = proxy_agent::datapath::PinDir::new(&node.bpffs)
                    .open_maps()?
                    .image()?;
                let largest = image
                    .services
                    .values()
                    .map(|service| service.internal.len)
                    .max();
                ensure!(largest == Some(u32::from(ENDPOINTS)), "{largest:?}");
                ensure!(room(node)? == 16_384, "room for {}", room(node)?);
                Ok(())
            })?;
        }
        world.await_said(&["the tables have room for 16384 endpoints"])?;
        kept.stay().context("with larger tables")?;
        // Who had an id has it still.
        for (node, before) in cluster.topology.nodes.iter().zip(&before) {
            let now = pinned::Ids::of(node)?;
            for (at, id) in &before.services {
                ensure!(now.services.get(at) == Some(id), "{at} is not {id}");
            }
            for (at, id) in &before.backends {
                ensure!(now.backends.get(at) == Some(id), "{at:?} is not {id}");
            }
        }
        served.move_to(world, &pods[2..])?;
        for name in ["p1b:8080", "p2b:8080"] {
            world.await_on_nodes(&served.echo, |answer| answer.who() == Some(name))?;
        }
        // What has grown stays so over a restart.
        cluster.kill_agents();
        for number in [1, 2] {
            let agent = Agent::begin(&launch(cluster.node(number)))?;
            cluster.agents().push(agent);
        }
        for agent in cluster.agents().iter() {
            agent.wait_until_ready()?;
        }
        ensure!(
            room(cluster.node(1))? == 16_384,
            "the tables have become small"
        );
        Ok(())
    })?;
    kept.stay_over_tcp()?;
    eprintln!("tables grew: {count}");
    Ok(())
}
