//! The agent's `/metrics`, as Prometheus reads it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use testbed::sockets::http;
use testbed::topology::Node;

const AT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10249);
/// Longer than Prometheus has (10 s): the figure tells.
const PATIENCE: Duration = Duration::from_secs(60);
const EVENT_TO_MAP: &str = "portside_event_to_map_seconds_bucket{le=\"";

pub struct Scrape {
    pub took: Duration,
    pub text: String,
}

pub fn scrape(node: &Node) -> Result<Scrape> {
    let began = Instant::now();
    let response = http::fetch_within(PATIENCE, node.netns(), SocketAddr::from(AT), "/metrics")?;
    ensure!(response.status == 200, "/metrics: {}", response.head);
    Ok(Scrape {
        took: began.elapsed(),
        text: response.body,
    })
}

/// The buckets of the time from an event to the maps: upper bound in seconds, events up to it.
pub struct Buckets(Vec<(f64, u64)>);

impl Buckets {
    pub fn of(scrape: &Scrape) -> Result<Self> {
        let read = |line: &str| {
            let (bound, count) = line.strip_prefix(EVENT_TO_MAP)?.split_once("\"} ")?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().ok()?
            };
            Some((bound, count.split(' ').next()?.parse().ok()?))
        };
        let buckets: Vec<_> = scrape.text.lines().filter_map(read).collect();
        ensure!(!buckets.is_empty(), "/metrics has no {EVENT_TO_MAP}");
        Ok(Self(buckets))
    }

    /// The upper bound, in seconds, of the bucket in which the quantile of what came after `before` lies.
    pub fn quantile_since(&self, before: &Self, quantile: f64) -> Result<f64> {
        let counts: Vec<_> = self
            .0
            .iter()
            .zip(&before.0)
            .map(|(now, then)| (now.0, now.1 - then.1))
            .collect();
        let all = counts.last().context("no bucket")?.1;
        let found = counts
            .iter()
            .find(|(_, count)| *count as f64 >= quantile * all as f64);
        Ok(found.context("no bucket")?.0)
    }
}
