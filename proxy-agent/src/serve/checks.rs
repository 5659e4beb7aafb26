//! Health-check node ports: a load balancer asks each node whether it has endpoints of a service with
//! `externalTrafficPolicy: Local`. Any path and method; body and headers are kube-proxy's.
//!
//! Each family has a socket of its own, which answers for the endpoints of that family. A port that cannot be had is
//! said once, with the service and the port, and tried again; the others are served meanwhile.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::{task::JoinHandle, time};
use tracing::{info, warn};

use super::{
    Status,
    http::{self, Answer, Asked},
    listen::{self, Families},
    observed::Check,
    room::Room,
};
use crate::{
    model::{Family, ObjectName},
    notices::{Notice, Reason, Topic},
};

/// How many endpoints of the service this node has, for load balancers that weigh nodes (KEP-3836).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// From a port that could not be had until the next try.
const RETRY: Duration = Duration::from_secs(2);

/// What is to be served.
#[derive(Clone, Default, Debug)]
pub struct Checks {
    /// `None` for all local addresses.
    pub addresses: Option<Vec<IpAddr>>,
    pub services: BTreeMap<ObjectName, Check>,
}

/// A service and where its check is served.
type CheckPort = (ObjectName, SocketAddr);

impl Checks {
    /// All sockets, each with the endpoints it answers for.
    fn wanted(&self) -> BTreeMap<CheckPort, usize> {
        let mut wanted = BTreeMap::new();
        for (name, check) in &self.services {
            for (&family, &count) in &check.local_endpoints {
                for addr in self.addresses(family) {
                    let at = SocketAddr::new(addr, check.port);
                    wanted.insert((name.clone(), at), count);
                }
            }
        }
        wanted
    }

    fn addresses(&self, family: Family) -> Vec<IpAddr> {
        match &self.addresses {
            None => vec![match family {
                Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
            }],
            Some(some) => some
                .iter()
                .copied()
                .filter(|&addr| Family::of(addr) == family)
                .collect(),
        }
    }
}

/// A socket that is being served.
struct Open {
    endpoints: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// Opens and closes sockets as the checks change. Never ends.
pub async fn serve(status: Arc<Status>, room: Room) {
    let mut checks = status.checks();
    let mut open: BTreeMap<CheckPort, Open> = BTreeMap::new();
    let mut failed: BTreeMap<CheckPort, String> = BTreeMap::new();
    loop {
        let wanted = checks.borrow_and_update().wanted();
        failed.retain(|port, _| {
            let stays = wanted.contains_key(port);
            if !stays {
                let (name, at) = port;
                status.notices().set(name, Topic::Check(*at), Vec::new());
            }
            stays
        });
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = open
            .into_iter()
            .partition(|(port, _)| wanted.contains_key(port));
        open = stay;
        for ((name, at), Open { task, .. }) in gone {
            task.abort();
            // Its socket is closed when it has ended: the port may be for another service now.
            let _ = task.await;
            info!("Service {name}: health-check node port at {at} closed");
        }
        for (port, count) in wanted {
            if let Some(Open { endpoints, .. }) = open.get(&port) {
                endpoints.store(count, Ordering::Relaxed);
                continue;
            }
            let (name, at) = &port;
            match listen::listen(*at, Families::Own) {
                Ok(listener) => {
                    info!("Service {name}: health-check node port at {at} opened");
                    failed.remove(&port);
                    status.notices().set(name, Topic::Check(*at), Vec::new());
                    let endpoints = Arc::new(AtomicUsize::new(count));
                    let answer = answerer(name.clone(), &endpoints, &status);
                    let task = tokio::spawn(http::serve(listener, room.clone(), answer));
                    open.insert(port, Open { endpoints, task });
                }
                Err(error) => {
                    let error = error.to_string();
                    if failed.get(&port) != Some(&error) {
                        warn!(
                            "Service {name}: spec.healthCheckNodePort {}: cannot listen at {at}: {error}; \
                             it is tried again every {RETRY:?}",
                            at.port()
                        );
                        let notice = format!(
                            "spec.healthCheckNodePort: cannot listen at {at} of this node: {error}"
                        );
                        let notice = Notice::new(Reason::HealthCheckPortTaken, notice);
                        status.notices().set(name, Topic::Check(*at), vec![notice]);
                        failed.insert(port, error);
                    }
                }
            }
        }
        let retry = async {
            if failed.is_empty() {
                std::future::pending::<()>().await;
            }
            time::sleep(RETRY).await;
        };
        tokio::select! {
            changed = checks.changed() => if changed.is_err() { return },
            () = retry => {}
        }
    }
}

fn answerer(
    name: ObjectName,
    endpoints: &Arc<AtomicUsize>,
    status: &Arc<Status>,
) -> impl Fn(Asked) -> std::future::Ready<Answer> + Clone + Send + Sync + 'static {
    let (endpoints, status) = (Arc::clone(endpoints), Arc::clone(status));
    move |_asked| {
        std::future::ready(answer(
            &name,
            endpoints.load(Ordering::Relaxed),
            status.is_healthy(),
        ))
    }
}

fn answer(name: &ObjectName, endpoints: usize, healthy: bool) -> Answer {
    let status = if endpoints > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let quoted = |text: &str| Value::from(text).to_string();
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        quoted(&name.namespace),
        quoted(&name.name),
    );
    let mut answer = Answer::json(status, body);
    answer.headers.push((WEIGHT, HeaderValue::from(endpoints)));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ObjectName {
        ObjectName::new("spec", "l1")
    }

    #[test]
    fn the_answer_is_that_of_kube_proxy() {
        let found = answer(&name(), 2, true);
        assert_eq!(found.status, StatusCode::OK);
        assert_eq!(
            found.body,
            "{\n\t\"service\": {\n\t\t\"namespace\": \"spec\",\n\t\t\"name\": \"l1\"\n\t},\n\t\"localEndpoints\": 2,\n\t\
             \"serviceProxyHealthy\": true\n}"
        );
        let header = |name: &str| {
            let found = found.headers.iter().find(|(given, _)| given == name);
            found.map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("x-content-type-options"), Some("nosniff"));
        assert_eq!(header("x-load-balancing-endpoint-weight"), Some("2"));
    }

    #[test]
    fn without_an_endpoint_or_with_a_stuck_proxy_the_node_is_left_out() {
        for (endpoints, healthy, status) in [(1, true, 200), (0, true, 503), (1, false, 503)] {
            assert_eq!(answer(&name(), endpoints, healthy).status, status);
        }
    }

    #[test]
    fn each_family_has_sockets_at_its_own_addresses() {
        let check = Check {
            port: 32_000,
            local_endpoints: BTreeMap::from([(Family::Ipv4, 1), (Family::Ipv6, 2)]),
        };
        let wanted = |addresses: Option<&[&str]>| {
            let checks = Checks {
                addresses: addresses.map(|all| all.iter().map(|a| a.parse().unwrap()).collect()),
                services: BTreeMap::from([(name(), check.clone())]),
            };
            let all = checks.wanted().into_iter();
            all.map(|((_, at), count)| format!("{at} {count}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(wanted(None), ["0.0.0.0:32000 1", "[::]:32000 2"]);
        assert_eq!(
            wanted(Some(&["192.0.2.1", "192.0.2.2"])),
            ["192.0.2.1:32000 1", "192.0.2.2:32000 1"]
        );
        assert!(wanted(Some(&[])).is_empty());
    }
}
