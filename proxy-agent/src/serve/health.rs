//! Whether the agent does its work. Conditions, codes and bodies are kube-proxy's (pkg/proxy/healthcheck, 1.36); `/readyz`
//! is our own.
//!
//! - `/livez`: an update that waits for longer than [`LATE`] says that writing is stuck. Having nothing to do is healthy, also
//!   while the API server is away: restarting the agent would not help.
//! - `/healthz`: the same, and the node is not about to be deleted: a load balancer should take it out in time.
//! - `/readyz`: all that the source has is in the maps, and packets are seen, at each device whose packets are to be seen.
//!
//! A device that lacks a hook, and cannot have it back at once, serves nobody: a load balancer should take the node out (`/healthz`), and
//! where that lasts, the agent is as stuck as with an update that it cannot write (`/livez`).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use super::http::Answer;

/// kube-proxy waits for two of its sync periods, which are 30 s unless configured.
pub const LATE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Health(Mutex<State>);

#[derive(Clone, Debug)]
struct State {
    updated: SystemTime,
    /// When the oldest update that is not written yet came.
    waiting_since: Option<Instant>,
    node_leaving: bool,
    ready: bool,
    /// What devices lack, and since when.
    lacking: Vec<String>,
    lacking_since: Option<Instant>,
}

impl Health {
    /// Healthy, as an agent is that starts; not ready.
    pub fn new(now: SystemTime) -> Self {
        Self(Mutex::new(State {
            updated: now,
            waiting_since: None,
            node_leaving: false,
            ready: false,
            lacking: Vec::new(),
            lacking_since: None,
        }))
    }

    /// An update has come.
    pub fn queued(&self, now: Instant) {
        self.state().waiting_since.get_or_insert(now);
    }

    /// All updates are written.
    pub fn updated(&self, now: SystemTime) {
        let mut state = self.state();
        state.updated = now;
        state.waiting_since = None;
    }

    pub fn set_node_leaving(&self, leaving: bool) {
        self.state().node_leaving = leaving;
    }

    pub fn set_ready(&self) {
        self.state().ready = true;
    }

    /// What lacks now, a sentence each.
    pub fn set_lacking(&self, now: Instant, lacking: Vec<String>) {
        let mut state = self.state();
        state.lacking_since = match state.lacking_since {
            _ if lacking.is_empty() => None,
            Some(since) => Some(since),
            None => Some(now),
        };
        state.lacking = lacking;
    }

    /// Is writing not stuck?
    pub fn is_healthy(&self, now: Instant) -> bool {
        is_healthy(&self.state(), now)
    }

    pub fn healthz(&self, now: Instant, time: SystemTime) -> Answer {
        let state = self.state().clone();
        let good = is_healthy(&state, now) && !state.node_leaving && state.lacking_since.is_none();
        answer(&state, now, time, good, Some(!state.node_leaving))
    }

    pub fn livez(&self, now: Instant, time: SystemTime) -> Answer {
        let state = self.state().clone();
        answer(&state, now, time, is_healthy(&state, now), None)
    }

    pub fn readyz(&self) -> Answer {
        match self.why_not_ready() {
            None => Answer::text(StatusCode::OK, "ok"),
            Some(why) => Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {why}\n"),
            ),
        }
    }

    pub fn why_not_ready(&self) -> Option<String> {
        let state = self.state();
        match (state.ready, &state.lacking[..]) {
            (true, []) => None,
            (false, _) => {
                Some("the first sync is not done, or the programs are not attached".to_owned())
            }
            (true, lacking) => Some(lacking.join("; ")),
        }
    }

    /// When the oldest update that is not written yet came.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.state().waiting_since
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values: whoever panicked left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_healthy(state: &State, now: Instant) -> bool {
    [state.waiting_since, state.lacking_since]
        .into_iter()
        .flatten()
        .all(|since| now.saturating_duration_since(since) < LATE)
}

/// The body, its fields in kube-proxy's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<&'static str, FamilyStatus>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyStatus {
    last_updated: String,
    healthy: bool,
}

fn answer(
    state: &State,
    now: Instant,
    time: SystemTime,
    good: bool,
    node_eligible: Option<bool>,
) -> Answer {
    let healthy = is_healthy(state, now);
    let of_family = FamilyStatus {
        last_updated: rfc3339(state.updated),
        healthy,
    };
    let body = Body {
        // A healthy proxy is as good as just updated.
        last_updated: rfc3339(if good { time } else { state.updated }),
        current_time: rfc3339(time),
        node_eligible,
        healthy,
        // One loop writes both families.
        status: ["IPv4", "IPv6"]
            .into_iter()
            .map(|family| (family, of_family.clone()))
            .collect(),
    };
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Answer::json(
        status,
        serde_json::to_string(&body).expect("a body of texts and booleans is JSON"),
    )
}

fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045 + seconds)
    }

    #[test]
    fn the_bodies_are_those_of_kube_proxy() {
        let health = Health::new(at(0));
        let now = Instant::now();
        let answer = health.healthz(now, at(5));
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(
            answer.body,
            r#"{"lastUpdated":"2026-01-02T03:04:10Z","currentTime":"2026-01-02T03:04:10Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:05Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-02T03:04:05Z","healthy":true}}}"#
        );
        let headers: Vec<_> = answer
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            headers,
            [
                ("content-type", "application/json"),
                ("x-content-type-options", "nosniff")
            ]
        );
        let live = health.livez(now, at(5));
        assert_eq!(live.status, StatusCode::OK);
        assert!(!live.body.contains("nodeEligible"), "{}", live.body);
    }

    #[test]
    fn an_update_that_waits_for_too_long_is_unhealthy_until_it_is_written() {
        let health = Health::new(at(0));
        let queued = Instant::now();
        health.queued(queued);
        health.queued(queued + LATE / 2);
        let late = queued + LATE;
        assert_eq!(
            health.livez(late - Duration::from_millis(1), at(59)).status,
            StatusCode::OK
        );
        for answer in [health.livez(late, at(60)), health.healthz(late, at(60))] {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(
                answer
                    .body
                    .starts_with(r#"{"lastUpdated":"2026-01-02T03:04:05Z""#),
                "{}",
                answer.body
            );
            assert!(answer.body.contains(r#""healthy":false"#));
        }
        assert!(!health.is_healthy(late));
        health.updated(at(61));
        assert_eq!(health.healthz(late, at(61)).status, StatusCode::OK);
    }

    #[test]
    fn a_node_that_is_leaving_is_for_load_balancers_only() {
        let health = Health::new(at(0));
        let now = Instant::now();
        health.set_node_leaving(true);
        let answer = health.healthz(now, at(1));
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            answer
                .body
                .contains(r#""nodeEligible":false,"healthy":true"#)
        );
        assert_eq!(health.livez(now, at(1)).status, StatusCode::OK);
        assert!(health.is_healthy(now));
        health.set_node_leaving(false);
        assert_eq!(health.healthz(now, at(2)).status, StatusCode::OK);
    }

    #[test]
    fn a_device_that_lacks_a_hook_takes_the_node_out_and_in_the_end_the_agent() {
        let health = Health::new(at(0));
        health.set_ready();
        let lost = Instant::now();
        let lacking = || vec!["eth0 lacks tc_uplink_in: no such device".to_owned()];
        health.set_lacking(lost, lacking());
        health.set_lacking(lost + LATE / 2, lacking());
        let answer = health.readyz();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            answer.body.contains("eth0 lacks tc_uplink_in"),
            "{}",
            answer.body
        );
        let status = |answer: Answer| answer.status;
        let late = lost + LATE;
        for (now, healthz, livez) in [
            (lost, StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK),
            (
                late,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::SERVICE_UNAVAILABLE,
            ),
        ] {
            assert_eq!(status(health.healthz(now, at(1))), healthz);
            assert_eq!(status(health.livez(now, at(1))), livez);
        }
        health.set_lacking(late, Vec::new());
        assert_eq!(status(health.readyz()), StatusCode::OK);
        assert_eq!(status(health.healthz(late, at(1))), StatusCode::OK);
    }

    #[test]
    fn ready_is_said_once_everything_is_in_force() {
        let health = Health::new(at(0));
        assert_eq!(health.readyz().status, StatusCode::SERVICE_UNAVAILABLE);
        health.set_ready();
        assert_eq!(health.readyz().status, StatusCode::OK);
    }
}
