//! A real Prometheus that scrapes both agents: what docs/autoscaling.md says to ask it has the numbers that clients made.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::client::Client;
use controllers::cluster::LiveCluster;
use controllers::metrics_api::CONNECTIONS;
use controllers::scene::{await_pods, deployment, service, ways};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::agent::Uplink;
use testbed::patience::eventually;
use testbed::sockets::http;
use testbed::topology::{Host, Pod};
use vm_protocol::variable;

use super::await_connections;

const PAGE: &str = include_str!("../../../docs/autoscaling.md");

const LISTENS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Where the agents tell their metrics, for others than their own nodes.
const EXPOSED: u16 = 10249;

/// kube-proxy's own name for what is no counter: dashboards look for it.
const AS_KUBE_PROXY: &str = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";

/// Why there is none, if so.
pub fn missing() -> Option<&'static str> {
    let version = Command::new(program("prometheus"))
        .arg("--version")
        .output();
    let runs = version.is_ok_and(|ran| ran.status.success());
    (!runs).then_some("prometheus is neither installed nor to be had from the distribution")
}

fn program(name: &str) -> PathBuf {
    match env::var_os(variable::PROMETHEUS) {
        Some(directory) => PathBuf::from(directory).join(name),
        None => name.into(),
    }
}

/// The page's code blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let begun = PAGE.split(fence.as_str()).skip(1);
    begun
        .filter_map(|text| text.split("\n```").next())
        .collect()
}

/// The process, which ends with this.
struct Prometheus<'a> {
    child: Child,
    host: &'a Host,
}

impl<'a> Prometheus<'a> {
    fn start(cluster: &LiveCluster, host: &'a Host) -> Result<Self> {
        let directory = cluster.topology.run.directory("prometheus")?;
        let config = directory.join("prometheus.yml");
        let mut text = blocks("yaml")[0].replace("15s", "1s");
        for (name, node) in ["NODE1", "NODE2"].into_iter().zip(&cluster.topology.nodes) {
            ensure!(
                text.contains(name),
                "the page's configuration names no {name}"
            );
            text = text.replace(name, &node.host.ip.v4.to_string());
        }
        fs::write(&config, text)?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = host.netns.command(program("prometheus"))?;
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={LISTENS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: between fork and exec nothing but a system call is made, which is safe there.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let child = command.spawn().context("starting prometheus")?;
        Ok(Self { child, host })
    }

    /// The samples that answer a query: their labels and values.
    fn ask(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            if byte.is_ascii_alphanumeric() {
                encoded.push(byte.into());
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        let path = format!("/api/v1/query?query={encoded}");
        let client = Client::inside(&self.host.netns, LISTENS);
        let (_, document) = client.call("GET", &path, &Value::Null)?;
        ensure!(document["status"] == "success", "{query}: {document}");
        let samples = document["data"]["result"].as_array().into_iter().flatten();
        samples
            .map(|sample| {
                let value = sample["value"][1].as_str().unwrap_or_default().parse()?;
                Ok((sample["metric"].clone(), value))
            })
            .collect()
    }

    fn one(&self, query: &str) -> Result<f64> {
        let samples = self.ask(query)?;
        ensure!(samples.len() == 1, "{query}: {samples:?}");
        Ok(samples[0].1)
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn scrapes() -> Result<()> {
    let bind = format!("0.0.0.0:{EXPOSED}");
    let cluster = LiveCluster::build_with(Uplink::Xdp, &["--metrics-bind", &bind])?;
    let visitor: Pod = cluster.topology.nodes[1].add_pod("visitor")?;
    let observer = cluster.topology.nodes[0].add_pod("prometheus")?;
    let prometheus = Prometheus::start(&cluster, &observer)?;

    cluster.client().apply(&deployment("web", 2))?;
    cluster.client().apply(&service("web"))?;
    cluster.client().apply(&service("empty"))?;
    await_pods(&cluster, "web", 2)?;
    let ways_in = ways(&cluster, &visitor, "web")?;
    for (from, target) in &ways_in {
        eventually("the Service answers", || http::get(from, *target).map(drop))?;
    }
    let sum = format!("sum({CONNECTIONS}{{service_namespace=\"default\", service_name=\"web\"}})");
    let mut asked = ways_in.len() as u64;
    eventually("Prometheus has the first connections", || {
        let told = prometheus.one(&sum)?;
        ensure!(told == asked as f64, "{told} of {asked}");
        Ok(())
    })?;
    for _ in 0..25 {
        for (from, target) in &ways_in {
            http::get(from, *target)?;
            asked += 1;
        }
    }
    await_connections(&cluster, asked)?;
    eventually("Prometheus has as many connections as clients made", || {
        let told = prometheus.one(&sum)?;
        ensure!(told == asked as f64, "{told} of {asked}");
        Ok(())
    })?;
    let mut asleep = service("asleep");
    asleep["metadata"]["annotations"] = json!({"portside.io/scale-from-zero": "hold"});
    cluster.client().apply(&asleep)?;
    for (from, target) in ways(&cluster, &visitor, "asleep")? {
        eventually("the Service holds its first packets", || {
            let late = http::fetch_within(Duration::from_millis(300), from, target, "/");
            let late = late.err().context("a Service without endpoints answers")?;
            ensure!(format!("{late:#}").contains("timed out"), "{late:#}");
            Ok(())
        })?;
    }
    for (from, target) in ways(&cluster, &visitor, "empty")? {
        ensure!(
            http::get(from, target).is_err(),
            "{target} answers without an endpoint"
        );
    }

    let queries = blocks("promql");
    ensure!(queries.len() == 5, "the page has {} queries", queries.len());
    for query in queries {
        answers(&prometheus, query)?;
    }
    let rules = blocks("yaml")[1];
    let template = value_of(rules, "metricsQuery: ")?;
    for metric in ["connections", "bytes", "packets"] {
        let query = template
            .replace("<<.Series>>", &format!("portside_service_{metric}_total"))
            .replace(
                "<<.LabelMatchers>>",
                "service_namespace=\"default\",service_name=\"web\"",
            )
            .replace("<<.GroupBy>>", "service_name");
        answers(&prometheus, &query)?;
    }
    let series = value_of(rules, "- seriesQuery: ")?
        .trim_matches('\'')
        .to_owned();
    ensure!(
        !prometheus.ask(&series)?.is_empty(),
        "{series} finds no series"
    );
    for trigger in &blocks("yaml")[3..] {
        answers(&prometheus, value_of(trigger, "query: ")?)?;
    }

    // What scrapers of the older format read has no fault that promtool knows.
    for node in &cluster.topology.nodes {
        check_by_promtool(node)?;
    }
    Ok(())
}

/// Waits for an answer whose every value is more than nothing.
fn answers(prometheus: &Prometheus<'_>, query: &str) -> Result<()> {
    eventually("a query of the page has an answer", || {
        let samples = prometheus.ask(query)?;
        let is_told = !samples.is_empty() && samples.iter().all(|(_, value)| *value > 0.0);
        ensure!(is_told, "{query}: {samples:?}");
        Ok(())
    })
}

/// What stands behind a key in a block.
fn value_of(block: &'static str, key: &str) -> Result<&'static str> {
    let line = block.lines().find_map(|line| line.split_once(key));
    Ok(line.with_context(|| format!("no {key} in {block}"))?.1)
}

fn check_by_promtool(node: &testbed::topology::Node) -> Result<()> {
    let text = node.netns().run(|| -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, EXPOSED))?;
        stream.write_all(
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain;version=0.0.4\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
        ensure!(
            head.to_lowercase()
                .contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        Ok(body.to_owned())
    })?;
    let mut child = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(text.as_bytes())?;
    drop(stdin);
    let ran = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    let mut faults = said.lines().filter(|line| !line.starts_with(AS_KUBE_PROXY));
    let fault = faults.next();
    ensure!(
        fault.is_none() && !text.is_empty(),
        "promtool check metrics: {said}"
    );
    Ok(())
}
