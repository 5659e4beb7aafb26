//! The control plane: an agent that follows an API server with many Services, from its start to single changes.
//!
//! ```text
//!  this program ── objects ──► API server ── lists, watches ──► agent ── bpf(2) ──► maps
//!        └─────────────────────── reads the pinned maps ◄───────────────────────────┘
//! ```
//!
//! The time of a change is from the moment before it is given to the server until the pinned map shows it: the server's
//! own work and the pauses between looks are in it.

mod lists;
mod maps;
mod objects;
mod process;
mod scrape;

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::maps::Programmed;
use self::objects::Served;
use self::scrape::{Buckets, scrape};
use super::median;
use super::table::Table;
use api_server::ApiServer;
use api_server::resource::Resource;
use testbed::agent::{Agent, Launch, Source, Uplink};
use testbed::topology::{Plan, Topology};

/// What is asked of an agent.
struct Bars {
    /// From its start to all in maps; asked of the usual size.
    first_sync: Option<Duration>,
    /// The agent's processor time for that.
    processor: Duration,
    /// A change, nearly always (p99).
    change: Duration,
    memory_kib: u64,
}

impl Bars {
    /// A cluster of the usual size, or one of 50,000 services.
    fn of(size: &Size) -> Self {
        if size.services < 50_000 {
            return Self {
                first_sync: Some(Duration::from_secs(2)),
                processor: Duration::from_secs(2),
                change: Duration::from_millis(10),
                memory_kib: 100 << 10,
            };
        }
        Self {
            first_sync: None,
            processor: Duration::from_secs(5),
            change: Duration::from_millis(5),
            memory_kib: 250 << 10,
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub services: u32,
    /// Endpoints of each service.
    pub endpoints: u32,
    /// Single-endpoint changes that are measured.
    pub changes: u32,
    /// Changes per second.
    pub rate: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            services: 10_000,
            endpoints: 10,
            changes: 2000,
            rate: 100,
        }
    }
}

pub fn measure(size: &Size) -> Result<Table> {
    ensure!(
        size.services > 0 && size.endpoints > 0 && size.changes > 0 && size.rate > 0,
        "a size is 0: {size:?}"
    );
    let topology = Topology::build(&Plan {
        nodes: 1,
        ..Plan::default()
    })?;
    let node = &topology.nodes[0];
    let server = ApiServer::serve(node.netns().run(|| TcpListener::bind("127.0.0.1:0"))?)?;
    server.put(Resource::Nodes, "", node.name(), json!({"metadata": {}}));
    let mut all: Vec<_> = (0..size.services)
        .map(|number| Served::new(number, size.endpoints))
        .collect();
    all.iter().for_each(|served| served.put(&server));
    let fetched = lists::fetch(node, &server)?;

    let kubeconfig = topology.run.directory("kubeconfig")?.join("config");
    fs::write(&kubeconfig, server.kubeconfig().to_string()).context("writing the kubeconfig")?;
    let source = Source::Kubeconfig(kubeconfig);
    let launch = Launch::new(node, &source, Uplink::Xdp).with_default_tables();
    let agent = Agent::begin(&launch)?;
    agent.wait_until_ready()?;
    let programmed = Programmed::open(node)?;
    programmed.ensure_complete(&all)?;

    let bars = Bars::of(size);
    let mut report = Report::new(size);
    let ready = agent
        .said_after("ready: ")
        .context("the agent did not say that it is ready")?;
    let listed = agent.said_after("lists are complete").unwrap_or(ready);
    report.row(
        "first sync: start to all in maps",
        seconds(ready),
        bars.first_sync
            .map(|bar| (format!("< {bar:?}"), ready < bar)),
    );
    report.row(
        "- of that, lists complete to all in maps",
        seconds(ready.saturating_sub(listed)),
        None,
    );
    report.row(
        "- the lists by themselves, read by a bare client",
        format!(
            "{} for {:.1} MB",
            seconds(fetched.took),
            fetched.bytes as f64 / 1e6
        ),
        None,
    );
    let [user, system] = process::cpu(agent.pid())?;
    report.row(
        "- the agent's processor time, program + kernel",
        format!("{} + {}", seconds(user), seconds(system)),
        Some((
            format!("< {:?} together", bars.processor),
            user + system < bars.processor,
        )),
    );
    let synced = process::memory(agent.pid())?;

    let before = Buckets::of(&scrape(node)?)?;
    let mut times = change(size, &server, &programmed, &mut all)?;
    let after = Buckets::of(&scrape(node)?)?;
    times.sort_unstable();
    let at = |quantile: f64| {
        times[((times.len() as f64 * quantile).ceil() as usize).clamp(1, times.len()) - 1]
    };
    report.row(
        "one endpoint changes: to the map, p50",
        milliseconds(at(0.5)),
        None,
    );
    report.row("- p90", milliseconds(at(0.9)), None);
    report.row(
        "- p99",
        milliseconds(at(0.99)),
        Some((format!("< {:?}", bars.change), at(0.99) < bars.change)),
    );
    report.row("- longest", milliseconds(at(1.0)), None);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let bound = after.quantile_since(&before, quantile)?;
        report.row(
            &format!("- by the agent's own histogram, {name}"),
            format!("at most {} ms", bound * 1e3),
            None,
        );
    }

    let changed = process::memory(agent.pid())?;
    let memory = |kib| {
        let bar = format!("< {} MiB", bars.memory_kib >> 10);
        Some((bar, kib < bars.memory_kib))
    };
    report.row(
        "resident memory, after first sync",
        mebibytes(synced.resident),
        memory(synced.resident),
    );
    report.row(
        "- after the changes",
        mebibytes(changed.resident),
        memory(changed.resident),
    );
    report.row(
        "- peak",
        mebibytes(changed.peak),
        bars.first_sync.and_then(|_| memory(changed.peak)),
    );

    let mut scrapes = Vec::new();
    let mut bytes = 0;
    for _ in 0..5 {
        let scrape = scrape(node)?;
        scrapes.push(scrape.took);
        bytes = scrape.text.len();
    }
    report.row(
        "a scrape of /metrics",
        format!(
            "{} for {:.1} MB",
            milliseconds(median(&mut scrapes)),
            bytes as f64 / 1e6
        ),
        None,
    );
    let scraped = process::memory(agent.pid())?;
    report.row(
        "- resident memory after it; peak",
        format!(
            "{}; {}",
            mebibytes(scraped.resident),
            mebibytes(scraped.peak)
        ),
        None,
    );
    Ok(report.0)
}

/// Makes the changes at their rate, one after the other; gives the times. One that comes late because of the one before it is
/// counted from when it was due.
fn change(
    size: &Size,
    server: &ApiServer,
    programmed: &Programmed,
    all: &mut [Served],
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let fresh = size.services * size.endpoints;
    let began = Instant::now();
    let mut seen = began;
    for number in 0..size.changes {
        let due = began + Duration::from_secs(1) * number / size.rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A step that has no common divisor with most sizes spreads them.
        let which = (u64::from(number) * 7919 % u64::from(size.services)) as usize;
        let served = &mut all[which];
        let before = programmed.value(served)?;
        let replaced = (number % size.endpoints) as usize;
        served.endpoints[replaced] = fresh + number;
        let from = if seen > due { due } else { Instant::now() };
        served.put_slice(server);
        seen = programmed.wait_for_change(served, &before)?;
        times.push(seen - from);
    }
    Ok(times)
}

/// The table, row by row.
struct Report(Table);

impl Report {
    fn new(size: &Size) -> Self {
        let Size {
            services,
            endpoints,
            changes,
            rate,
        } = size;
        Self(Table::new(
            &format!(
                "The control plane: {services} Services x {endpoints} endpoints, {changes} changes at {rate} per second"
            ),
            &["what", "measured", "bar", ""],
        ))
    }

    fn row(&mut self, what: &str, measured: String, bar: Option<(String, bool)>) {
        let (bar, verdict) = match bar {
            None => (String::new(), ""),
            Some((bar, true)) => (bar, "pass"),
            Some((bar, false)) => (bar, "SHORT"),
        };
        self.0
            .row(vec![what.to_owned(), measured, bar, verdict.to_owned()]);
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
