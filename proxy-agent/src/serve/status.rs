//! The state that the loop publishes, for probes, metrics and health checks.
//!
//! An update is *queued* from the time at which the first of its events was received, and *written* when the maps hold it;
//! what lies between is what health and the latency histograms are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use hyper::StatusCode;
use proxy_common::abi::ServiceId;
use tokio::sync::watch;

use super::{
    checks::Checks,
    health::Health,
    http::Answer,
    metrics::{Metrics, Probe},
    observed::Observed,
    unserved::{Unserved, summary},
};
use crate::{
    datapath::Findings,
    model::{Event, ServicePortKey},
    notices::{Notice, Notices, Reason, Topic},
};

/// Whose each service id is.
pub type ServiceNames = BTreeMap<ServiceId, Arc<ServicePortKey>>;

pub struct Status {
    notices: Notices,
    started: SystemTime,
    health: Health,
    pub(super) metrics: Metrics,
    queued: Mutex<Queued>,
    names: Mutex<Arc<ServiceNames>>,
    unserved: Mutex<Arc<Vec<Unserved>>>,
    checks: watch::Sender<Checks>,
}

/// What is taken in and not written yet.
#[derive(Default)]
struct Queued {
    batches: Vec<Instant>,
    triggers: Vec<SystemTime>,
}

impl Default for Status {
    fn default() -> Self {
        let started = SystemTime::now();
        Self {
            notices: Notices::default(),
            started,
            health: Health::new(started),
            metrics: Metrics::new(started),
            queued: Mutex::default(),
            names: Mutex::default(),
            unserved: Mutex::default(),
            checks: watch::Sender::default(),
        }
    }
}

impl Status {
    /// What is told of Services.
    pub const fn notices(&self) -> &Notices {
        &self.notices
    }

    /// A batch has come.
    pub fn arrived(&self, batch: &[Event]) {
        for event in batch {
            if let Event::NodeChanged(node) = event {
                self.health.set_node_leaving(node.leaving);
            }
        }
        self.metrics.arrived(batch);
    }

    /// The driver of this device lost frames that XDP sent back.
    pub fn xdp_lost(&self, device: &str, frames: u64) {
        self.metrics.xdp_lost(device, frames);
    }

    /// TC has taken the place of native XDP at this device.
    pub fn xdp_given_up(&self, device: &str) {
        self.metrics.xdp_given_up(device);
    }

    /// What came at `at` waits to be written. `triggers`: when that happened in the cluster which it tells of.
    pub fn queued(&self, at: Instant, triggers: Vec<SystemTime>) {
        self.health.queued(at);
        let mut queued = lock(&self.queued);
        // What happened before this agent ran, it cannot be late for.
        let since_start = triggers.into_iter().filter(|at| *at >= self.started);
        queued.triggers.extend(since_start);
        queued.batches.push(at);
    }

    /// The maps hold all that was queued; writing began at `began`.
    pub fn written(&self, began: Instant) {
        let Queued { batches, triggers } = mem::take(&mut *lock(&self.queued));
        let (now, time) = (Instant::now(), SystemTime::now());
        self.health.updated(time);
        self.metrics.written(now - began, time);
        for at in batches {
            self.metrics.event_written(now - at);
        }
        for at in triggers {
            // The clock of another machine may be ahead.
            self.metrics
                .programmed(time.duration_since(at).unwrap_or_default());
        }
    }

    /// Everything is in the maps and the programs are attached.
    pub fn set_ready(&self) {
        self.health.set_ready();
    }

    /// What was lost of the datapath and is restored, what lacks, and whether pins are missing; and why the programs do not know
    /// the node as it is, if so.
    pub fn looked_after(&self, findings: &Findings, node_unknown: Option<&str>) {
        self.metrics.looked_after(findings);
        let lacking = findings.lacking.iter().map(ToString::to_string);
        let unknown = node_unknown.map(|why| format!("the node is not known as it is: {why}"));
        let lacking = lacking.chain(unknown).collect();
        self.health.set_lacking(Instant::now(), lacking);
    }

    pub fn set_names(&self, names: Arc<ServiceNames>) {
        *lock(&self.names) = names;
    }

    /// What is left out for want of room.
    pub fn set_unserved(&self, all: Arc<Vec<Unserved>>) {
        let before = mem::replace(&mut *lock(&self.unserved), Arc::clone(&all));
        let mut gone: BTreeSet<_> = before.iter().map(Unserved::name).collect();
        for one in all.iter() {
            let name = one.name();
            let message = format!("{one}: {}", one.reason);
            let notice = Notice::new(Reason::NoRoom, message);
            self.notices.set(&name, Topic::Room, vec![notice]);
            gone.remove(&name);
        }
        for name in gone {
            self.notices.set(&name, Topic::Room, Vec::new());
        }
    }

    /// What follows from the services has changed, or may have.
    pub fn observe(&self, observed: &Observed) {
        self.metrics.set_no_local(observed.no_local());
        self.checks.send_if_modified(|checks| {
            let changed = checks.services != *observed.checks();
            if changed {
                checks.services.clone_from(observed.checks());
            }
            changed
        });
    }

    /// Local addresses at which health-check node ports are served; `None` for all.
    pub fn set_check_addresses(&self, addresses: Option<Vec<IpAddr>>) {
        self.checks.send_if_modified(|checks| {
            let changed = checks.addresses != addresses;
            checks.addresses = addresses;
            changed
        });
    }

    pub(super) fn names(&self) -> Arc<ServiceNames> {
        Arc::clone(&lock(&self.names))
    }

    pub(super) fn unserved(&self) -> Arc<Vec<Unserved>> {
        Arc::clone(&lock(&self.unserved))
    }

    pub(super) fn checks(&self) -> watch::Receiver<Checks> {
        self.checks.subscribe()
    }

    /// Why the agent is not ready, if so.
    pub fn why_not_ready(&self) -> Option<String> {
        self.health.why_not_ready()
    }

    /// When the oldest update that is not written yet came.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.health.waiting_since()
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health.is_healthy(Instant::now())
    }

    pub(super) fn healthz(&self) -> Answer {
        let answer = self.health.healthz(Instant::now(), SystemTime::now());
        self.metrics.probed(Probe::Healthz, answer.status);
        answer
    }

    pub(super) fn livez(&self) -> Answer {
        let answer = self.health.livez(Instant::now(), SystemTime::now());
        self.metrics.probed(Probe::Livez, answer.status);
        answer
    }

    pub(super) fn readyz(&self) -> Answer {
        let mut answer = self.health.readyz();
        // Full tables are no reason to take the node out: what is served is served.
        if let (StatusCode::OK, Some(summary)) = (answer.status, summary(&self.unserved())) {
            answer.body = format!("{}; {summary}\n", answer.body.trim_end());
        }
        answer
    }
}

/// A value that is whole even if somebody panicked while holding it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Event, Node},
        serve::health::LATE,
    };

    fn exposition(status: &Status) -> String {
        status.metrics.text().expect("text takes any value")
    }

    #[test]
    fn what_waits_for_too_long_is_unhealthy_until_it_is_written() {
        let status = Status::default();
        assert!(status.is_healthy());
        let long_ago = Instant::now().checked_sub(LATE).unwrap();
        status.queued(long_ago, vec![]);
        assert!(!status.is_healthy());
        status.written(Instant::now());
        assert!(status.is_healthy());
    }

    #[test]
    fn an_update_is_measured_from_its_arrival_and_from_its_cause() {
        let status = Status::default();
        let at = Instant::now()
            .checked_sub(Duration::from_millis(4))
            .unwrap();
        let before_start = status.started - Duration::from_secs(1);
        let causes = vec![before_start, SystemTime::now()];
        status.queued(at, causes);
        let text = exposition(&status);
        assert!(text.contains("portside_event_to_map_seconds_count 0"));
        status.written(Instant::now());
        let text = exposition(&status);
        assert!(
            text.contains("portside_event_to_map_seconds_count 1"),
            "{text}"
        );
        assert!(
            text.contains("portside_event_to_map_seconds_bucket{le=\"0.003\"} 0"),
            "{text}"
        );
        let programmed = "kubeproxy_network_programming_duration_seconds_count 1";
        assert!(text.contains(programmed), "{text}");
    }

    #[test]
    fn a_leaving_node_fails_healthz_and_both_probes_are_counted() {
        let status = Status::default();
        let node = Node {
            leaving: true,
            ..Node::named("node1")
        };
        assert_eq!(status.healthz().status, 200);
        status.arrived(&[Event::NodeChanged(node)]);
        assert_eq!(status.healthz().status, 503);
        assert_eq!(status.livez().status, 200);
        let text = exposition(&status);
        for line in [
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }
}
