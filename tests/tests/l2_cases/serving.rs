//! What the agent answers over HTTP: probes, metrics, and the node's endpoints of a service.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::agent::Agent;
use testbed::cluster::{Cluster, Vip};
use testbed::manifests::Endpoints;
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::sockets::http::{self, Response};
use testbed::topology::{Host, Node};

use crate::world::{World, dial, serve, who};

const HEALTH_PORT: u16 = 10256;
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// The health-check node port of a service lies so far above its node port.
const CHECK_PORT_ABOVE: u16 = 1000;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![
        world.row_beside_xdp("probes answer as kube-proxy's do", probes),
        world.row("metrics count what passes", metrics),
        world.row(
            "a health-check node port follows the local endpoints",
            local_endpoints,
        ),
        world.row_beside_xdp(
            "a health-check node port that is taken is told and had later",
            taken_port,
        ),
    ]
}

fn probes(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let client = cluster.topology.client();
    for family in Family::BOTH {
        let at = SocketAddr::new(node.host.ip.of(family), HEALTH_PORT);
        let healthz = http::fetch(&client.netns, at, "/healthz")?;
        ensure!(healthz.status == 200, "{healthz:?}");
        let content = healthz.header("content-type");
        ensure!(content == Some("application/json"), "{healthz:?}");
        let fields = |response: &Response| -> Result<Vec<String>> {
            let body: Value = serde_json::from_str(&response.body)?;
            let object = body.as_object().context("the body is no object")?;
            let mut fields: Vec<_> = object.keys().cloned().collect();
            fields.sort_unstable();
            Ok(fields)
        };
        let of_healthz = [
            "currentTime",
            "healthy",
            "lastUpdated",
            "nodeEligible",
            "status",
        ];
        ensure!(fields(&healthz)? == of_healthz, "{healthz:?}");
        let livez = http::fetch(&client.netns, at, "/livez")?;
        let of_livez = ["currentTime", "healthy", "lastUpdated", "status"];
        ensure!(
            livez.status == 200 && fields(&livez)? == of_livez,
            "{livez:?}"
        );
        let readyz = http::fetch(&client.netns, at, "/readyz")?;
        ensure!(readyz.status == 200 && readyz.body == "ok", "{readyz:?}");
        let other = http::fetch(&client.netns, at, "/metrics")?;
        ensure!(other.status == 404, "{other:?}");
    }
    let mode = http::fetch(node.netns(), METRICS, "/proxyMode")?;
    ensure!(mode.status == 200 && mode.body == "ebpf", "{mode:?}");
    let from_outside = SocketAddr::new(node.host.ip.of(Family::V4), METRICS.port());
    closed(client, from_outside)?;

    let at = SocketAddr::new(node.host.ip.of(Family::V4), HEALTH_PORT);
    let status = |path| Ok::<_, anyhow::Error>(http::fetch(&client.netns, at, path)?.status);
    let taints = json!({ "taints": [
        { "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" },
    ]});
    cluster.manifests.apply_node(node.name(), &taints)?;
    let tainted = eventually("healthz of a node that is leaving", || {
        ensure!(status("/healthz")? == 503);
        ensure!(status("/livez")? == 200);
        Ok(())
    });
    cluster.manifests.delete_node(node.name())?;
    tainted?;
    eventually("healthz of a node that stays", || {
        ensure!(status("/healthz")? == 200);
        Ok(())
    })
}

fn metrics(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let client = cluster.topology.client();
    let vip = serve(cluster, "measured", &[cluster.pod("p1")])?;
    let target = vip.on_node(node, Family::V4);
    let labels = |more: &str| {
        format!(
            "service_namespace=\"default\",service_name=\"{}\",port=\"t\",protocol=\"TCP\",ip_family=\"IPv4\"{more}",
            vip.name
        )
    };
    let connections = format!("portside_service_connections_total{{{}}}", labels(""));
    let packets = |direction: &str| {
        let more = format!(",direction=\"{direction}\"");
        format!("portside_service_packets_total{{{}}}", labels(&more))
    };
    let [requests, replies] = [packets("request"), packets("reply")];
    let before = eventually("a series with the service's name", || {
        let sample = Sample::take(node)?;
        sample.value(&connections)?;
        Ok(sample)
    })?;
    for _ in 0..10 {
        who(dial(client, Protocol::Tcp, target).ask())?;
    }
    // A client has its answer before the last packet of its connection is on its way.
    let after = eventually("ten connections that are counted", || {
        let after = Sample::take(node)?;
        let rise = |name: &str| Ok::<_, anyhow::Error>(after.value(name)? - before.value(name)?);
        ensure!(rise(&connections)? == 10.0, "{}", rise(&connections)?);
        // A connection has at least SYN, request and FIN one way, and as many the other way.
        ensure!(rise(&requests)? >= 30.0, "{}", rise(&requests)?);
        ensure!(rise(&replies)? >= 20.0, "{}", rise(&replies)?);
        Ok(after)
    })?;
    ensure!(after.value("portside_datapath_up")? == 1.0);
    ensure!(after.value("portside_map_entries{map=\"FLOWS_4\"}")? >= 2.0);
    ensure!(after.value("portside_flows{ip_family=\"IPv4\"}")? >= 1.0);
    ensure!(after.value("process_resident_memory_bytes")? > 1e6);

    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    eventually("a refusal that is counted", || {
        let before = Sample::take(node)?;
        let answer = dial(client, Protocol::Tcp, target).ask();
        ensure!(answer.who().is_none(), "{answer}");
        let after = Sample::take(node)?;
        let refused = format!("portside_service_refused_packets_total{{{}}}", labels(""));
        ensure!(
            after.value(&refused)? > before.value(&refused)?,
            "no refusal"
        );
        ensure!(
            after.dropped("refused")? > before.dropped("refused")?,
            "no reason"
        );
        let traffic = after.value(&requests)?;
        ensure!(
            traffic >= 30.0,
            "the endpoint took its {traffic} packets along"
        );
        Ok(())
    })?;
    // What others of this cluster do meanwhile is counted, too: the agent is asked until it has caught up.
    eventually("an update that is measured, and none that waits", || {
        let later = Sample::take(node)?;
        for measured in [
            "kubeproxy_sync_proxy_rules_endpoint_changes_total",
            "portside_event_to_map_seconds_count",
            "kubeproxy_sync_proxy_rules_duration_seconds_count",
        ] {
            ensure!(
                later.value(measured)? > after.value(measured)?,
                "{measured}"
            );
        }
        let pending = "kubeproxy_sync_proxy_rules_endpoint_changes_pending";
        ensure!(later.value(pending)? == 0.0, "{pending}");
        Ok(())
    })
}

fn local_endpoints(cluster: &Cluster) -> Result<()> {
    let client = cluster.topology.client();
    let vip = cluster.vip("checked");
    let endpoints = |endpoints: Endpoints| cluster.manifests.apply_endpoints(&endpoints);
    endpoints(vip.endpoints(&[cluster.pod("p1")]))?;
    publish_checked(cluster, &vip, "Local")?;
    let [node1, node2] = [cluster.node(1), cluster.node(2)];
    for family in Family::BOTH {
        await_check(client, node1, &vip, family, 1)?;
        await_check(client, node2, &vip, family, 0)?;
    }
    endpoints(vip.endpoints(&["p1", "p1b", "p2"].map(|name| cluster.pod(name))))?;
    await_check(client, node1, &vip, Family::V4, 2)?;
    await_check(client, node2, &vip, Family::V6, 1)?;
    // On its way out it still serves, and the load balancer is told to go elsewhere.
    endpoints(vip.no_endpoints().terminating_pod(cluster.pod("p1")))?;
    await_check(client, node1, &vip, Family::V4, 0)?;
    let answer = dial(client, Protocol::Tcp, vip.on_node(node1, Family::V4)).ask();
    ensure!(answer.who() == Some("p1:8080"), "{answer}");

    publish_checked(cluster, &vip, "Cluster")?;
    await_closed(client, check_at(node1, &vip, Family::V4))?;
    await_closed(client, check_at(node1, &vip, Family::V6))?;
    publish_checked(cluster, &vip, "Local")?;
    await_check(client, node1, &vip, Family::V4, 0)?;
    cluster.manifests.delete(&vip.name)?;
    await_closed(client, check_at(node1, &vip, Family::V4))
}

fn taken_port(cluster: &Cluster) -> Result<()> {
    let client = cluster.topology.client();
    let [vip, other] = ["late", "punctual"].map(|name| cluster.vip(name));
    let node = cluster.node(1);
    let at = (Ipv4Addr::UNSPECIFIED, check_port(&vip));
    let taken = node.netns().run(|| TcpListener::bind(at))?;
    for vip in [&vip, &other] {
        let endpoints = vip.endpoints(&[cluster.pod("p1")]);
        cluster.manifests.apply_endpoints(&endpoints)?;
        publish_checked(cluster, vip, "Local")?;
    }
    await_check(client, node, &other, Family::V4, 1)?;
    // The other family's socket and the other node's are no part of it.
    await_check(client, node, &vip, Family::V6, 1)?;
    await_check(client, cluster.node(2), &vip, Family::V4, 0)?;
    let port = check_port(&vip).to_string();
    eventually("a message that names service and port", || {
        let agents = cluster.agents();
        // All that was said: other rows have their agents say more meanwhile.
        let told = agents.iter().flat_map(Agent::lines).any(|line| {
            line.contains(&vip.name) && line.contains(&port) && line.contains("in use")
        });
        ensure!(told, "{}", agents[0].log());
        Ok(())
    })?;
    drop(taken);
    await_check(client, node, &vip, Family::V4, 1)
}

fn check_port(vip: &Vip) -> u16 {
    vip.node_port + CHECK_PORT_ABOVE
}

fn check_at(node: &Node, vip: &Vip, family: Family) -> SocketAddr {
    SocketAddr::new(node.host.ip.of(family), check_port(vip))
}

fn publish_checked(cluster: &Cluster, vip: &Vip, policy: &str) -> Result<()> {
    let service = vip
        .service()
        .with("type", json!("LoadBalancer"))
        .with("externalTrafficPolicy", json!(policy));
    let service = match policy {
        "Local" => service.with("healthCheckNodePort", json!(check_port(vip))),
        _ => service,
    };
    cluster.manifests.apply(&service)
}

/// Waits until the health-check node port tells of so many endpoints.
fn await_check(
    client: &Host,
    node: &Node,
    vip: &Vip,
    family: Family,
    endpoints: usize,
) -> Result<()> {
    let at = check_at(node, vip, family);
    eventually(&format!("{endpoints} endpoints at {at}"), || {
        let response = http::fetch(&client.netns, at, "/whatever")?;
        let body: Value = serde_json::from_str(&response.body)?;
        let wanted = json!({
            "service": { "namespace": "default", "name": vip.name },
            "localEndpoints": endpoints,
            "serviceProxyHealthy": true,
        });
        ensure!(body == wanted, "{response:?}");
        ensure!(
            response.status == if endpoints > 0 { 200 } else { 503 },
            "{response:?}"
        );
        let weight = response.header("X-Load-Balancing-Endpoint-Weight");
        ensure!(weight == Some(&endpoints.to_string()), "{response:?}");
        ensure!(
            response.header("X-Content-Type-Options") == Some("nosniff"),
            "{response:?}"
        );
        Ok(())
    })
}

fn await_closed(client: &Host, at: SocketAddr) -> Result<()> {
    eventually(&format!("{at} closed"), || closed(client, at))
}

/// Demands that nobody listens there.
fn closed(client: &Host, at: SocketAddr) -> Result<()> {
    match http::fetch(&client.netns, at, "/") {
        Ok(response) => bail!("{at} answers: {response:?}"),
        Err(error) => {
            let refused = error.root_cause().to_string().contains("refused");
            ensure!(refused, "{at}: {error:#}");
            Ok(())
        }
    }
}

/// What `/metrics` says at one time.
pub struct Sample(String);

impl Sample {
    pub fn take(node: &Node) -> Result<Self> {
        let response = http::fetch(node.netns(), METRICS, "/metrics")?;
        ensure!(response.status == 200, "{response:?}");
        let content = response.header("content-type").unwrap_or_default();
        ensure!(
            content.starts_with("application/openmetrics-text"),
            "{content}"
        );
        ensure!(response.body.ends_with("# EOF\n"), "{}", response.body);
        Ok(Self(response.body))
    }

    /// The value of one series, by its name and labels as they stand.
    fn value(&self, series: &str) -> Result<f64> {
        let found = self.0.lines().find_map(|line| {
            let value = line.strip_prefix(series)?.strip_prefix(' ')?;
            value.parse().ok()
        });
        found.ok_or_else(|| anyhow!("no series {series} in\n{}", self.0))
    }

    /// Packets that were dropped or refused for this reason, over all hooks.
    pub fn dropped(&self, reason: &str) -> Result<f64> {
        let of_reason = format!("portside_dropped_packets_total{{reason=\"{reason}\"");
        let lines = self.0.lines().filter(|line| line.starts_with(&of_reason));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.sum())
    }
}
