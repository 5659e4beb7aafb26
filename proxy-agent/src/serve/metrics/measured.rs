//! What the loop measured. Names that begin with `kubeproxy_` are those of kube-proxy 1.36, for what is the same here; its label
//! `ip_family` is left out where one write serves both families.

use std::{
    collections::BTreeMap,
    iter,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use hyper::StatusCode;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets, linear_buckets},
        info::Info,
    },
    registry::Registry,
};

use super::process::Process;
use crate::{
    datapath::{Findings, Loss},
    model::Event,
    notices::Reason,
    serve::observed::NoLocal,
};

/// From an event to the maps, in seconds: what is aimed at is milliseconds.
const EVENT_TO_MAP: [f64; 19] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

type Label = [(&'static str, String); 1];
type FloatGauge = Gauge<f64, AtomicU64>;

/// Who asks whether the agent is healthy.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    Healthz,
    Livez,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sync: Histogram,
    programming: Histogram,
    event_to_map: Histogram,
    last_written: FloatGauge,
    last_queued: FloatGauge,
    services: Changes,
    slices: Changes,
    no_local: Family<Label, Gauge>,
    notices: Family<Label, Gauge>,
    xdp_lost: Family<Label, Counter>,
    xdp_given_up: Family<Label, Counter>,
    restored: Family<Label, Counter>,
    lacking: Gauge,
    unpinned: Gauge,
    healthz: Family<Label, Counter>,
    livez: Family<Label, Counter>,
}

/// Events of one kind.
#[derive(Default, Debug)]
struct Changes {
    total: Counter,
    pending: Gauge,
}

impl Metrics {
    pub fn new(started: SystemTime) -> Self {
        let new = Self {
            registry: Registry::default(),
            sync: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            programming: Histogram::new(programming_buckets()),
            event_to_map: Histogram::new(EVENT_TO_MAP),
            last_written: FloatGauge::default(),
            last_queued: FloatGauge::default(),
            services: Changes::default(),
            slices: Changes::default(),
            no_local: Family::default(),
            notices: Family::default(),
            xdp_lost: Family::default(),
            xdp_given_up: Family::default(),
            restored: Family::default(),
            lacking: Gauge::default(),
            unpinned: Gauge::default(),
            healthz: Family::default(),
            livez: Family::default(),
        };
        new.registered(started)
    }

    fn registered(mut self, started: SystemTime) -> Self {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("portside");
        ours.register(
            "event_to_map_seconds",
            "From the arrival of an event to the maps that hold it",
            self.event_to_map.clone(),
        );
        for sort in Loss::SORTS {
            drop(self.restored.get_or_create(&[("what", sort.to_owned())]));
        }
        ours.register(
            "restored",
            "Parts of the datapath that somebody took away and the agent put back",
            self.restored.clone(),
        );
        ours.register(
            "lacking_hooks",
            "Hooks that devices need and lack now",
            self.lacking.clone(),
        );
        ours.register(
            "unpinned",
            "1 where pins are missing: the datapath works and ends with the agent",
            self.unpinned.clone(),
        );
        ours.register(
            "xdp_lost_frames",
            "Frames that native XDP sent back and the driver lost",
            self.xdp_lost.clone(),
        );
        ours.register(
            "xdp_fallbacks",
            "How often TC took the place of native XDP, as the driver lost frames",
            self.xdp_given_up.clone(),
        );
        ours.register(
            "noticed_services",
            "Services that are not served as their objects say, by reason",
            self.notices.clone(),
        );
        ours.register(
            "build",
            "The agent that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let theirs = registry.sub_registry_with_prefix("kubeproxy");
        theirs.register(
            "sync_proxy_rules_duration_seconds",
            "How long it takes to write what has changed",
            self.sync.clone(),
        );
        theirs.register(
            "network_programming_duration_seconds",
            "From a change of pods or services (as EndpointSlices tell it) to the maps that hold it",
            self.programming.clone(),
        );
        theirs.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the maps were last brought up to date",
            self.last_written.clone(),
        );
        theirs.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When the last update came",
            self.last_queued.clone(),
        );
        for (kind, changes) in [("service", &self.services), ("endpoint", &self.slices)] {
            theirs.register(
                format!("sync_proxy_rules_{kind}_changes"),
                "Events that came",
                changes.total.clone(),
            );
            theirs.register(
                format!("sync_proxy_rules_{kind}_changes_pending"),
                "Events that are not in the maps yet",
                changes.pending.clone(),
            );
        }
        theirs.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports whose Local policy leaves this node without an endpoint",
            self.no_local.clone(),
        );
        for (probe, counts) in [("healthz", &self.healthz), ("livez", &self.livez)] {
            theirs.register(
                format!("proxy_{probe}"),
                "Answers by status code",
                counts.clone(),
            );
        }
        registry.register_collector(Box::new(Process::new(started)));
        self.registry = registry;
        self
    }

    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The driver of this device lost frames that XDP sent back.
    pub fn xdp_lost(&self, device: &str, frames: u64) {
        self.xdp_lost
            .get_or_create(&[("device", device.to_owned())])
            .inc_by(frames);
    }

    /// TC has taken the place of native XDP at this device.
    pub fn xdp_given_up(&self, device: &str) {
        self.xdp_given_up
            .get_or_create(&[("device", device.to_owned())])
            .inc();
    }

    /// A batch has come.
    pub fn arrived(&self, batch: &[Event]) {
        for event in batch {
            let changes = match event {
                Event::ServiceUpserted(_) | Event::ServiceDeleted(_) => &self.services,
                Event::SliceUpserted(_) | Event::SliceDeleted(_) => &self.slices,
                _ => continue,
            };
            changes.total.inc();
            changes.pending.inc();
        }
        self.last_queued.set(seconds(SystemTime::now()));
    }

    /// Everything is written; it took `took`.
    pub fn written(&self, took: Duration, time: SystemTime) {
        self.sync.observe(took.as_secs_f64());
        self.last_written.set(seconds(time));
        self.services.pending.set(0);
        self.slices.pending.set(0);
    }

    pub fn looked_after(&self, findings: &Findings) {
        for loss in &findings.restored {
            self.restored
                .get_or_create(&[("what", loss.sort().to_owned())])
                .inc();
        }
        self.lacking
            .set(i64::try_from(findings.lacking.len()).unwrap_or(i64::MAX));
        self.unpinned.set(i64::from(findings.unpinned.is_some()));
    }

    pub fn event_written(&self, after: Duration) {
        self.event_to_map.observe(after.as_secs_f64());
    }

    pub fn programmed(&self, after: Duration) {
        self.programming.observe(after.as_secs_f64());
    }

    pub fn set_notices(&self, counts: BTreeMap<Reason, usize>) {
        for (reason, count) in counts {
            let label = [("reason", reason.text())];
            self.notices.get_or_create(&label).set(count as i64);
        }
    }

    pub fn set_no_local(&self, now: NoLocal) {
        let NoLocal { internal, external } = now;
        for (policy, count) in [("internal", internal), ("external", external)] {
            self.no_local
                .get_or_create(&[("traffic_policy", policy.to_owned())])
                .set(count);
        }
    }

    pub fn probed(&self, probe: Probe, status: StatusCode) {
        let counts = match probe {
            Probe::Healthz => &self.healthz,
            Probe::Livez => &self.livez,
        };
        counts
            .get_or_create(&[("code", status.as_str().to_owned())])
            .inc();
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// kube-proxy's buckets: 250 ms, then every second to a minute, and coarser to five minutes.
fn programming_buckets() -> impl Iterator<Item = f64> {
    iter::empty()
        .chain(linear_buckets(0.25, 0.25, 2))
        .chain(linear_buckets(1.0, 1.0, 59))
        .chain(linear_buckets(60.0, 5.0, 12))
        .chain(linear_buckets(120.0, 30.0, 7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;

    #[test]
    fn names_are_those_of_kube_proxy() {
        let metrics = Metrics::new(SystemTime::now());
        let name = ObjectName::new("default", "svc");
        metrics.arrived(&[
            Event::ServiceDeleted(name.clone()),
            Event::SliceDeleted(name.clone()),
            Event::SliceDeleted(name),
        ]);
        metrics.set_no_local(NoLocal {
            internal: 1,
            external: 2,
        });
        let text = metrics.text().unwrap();
        let mut families: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        families.sort_unstable();
        assert!(families.is_sorted_by(|a, b| a < b), "twice: {families:?}");
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"16.384\"} 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 1",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 2",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 2",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"internal\"} 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 2",
            "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"300.0\"} 0",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        metrics.written(Duration::from_millis(3), SystemTime::now());
        let text = metrics.text().unwrap();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.002\"} 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\"} 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 2",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }
}
