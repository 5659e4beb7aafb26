//! Who serves `custom.metrics.k8s.io` and `external.metrics.k8s.io` in a cluster, as small as it comes: a process of a pod, over
//! TLS, whose numbers are those that Portside's agents tell of their Services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::topology::{Host, Pod};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::cluster::{self, LiveCluster};
use crate::quantity;

pub const PORT: u16 = 8443;

/// What agents count of each Service.
pub const CONNECTIONS: &str = "portside_service_connections_total";

/// A metric's value now, in thousandths: of the Service of this namespace and name.
pub type Values = dyn Fn(&str, &str, &str) -> Option<i64> + Send + Sync;

/// A certificate for a Service's name, and the bundle by which it is trusted.
pub struct Identity {
    config: Arc<ServerConfig>,
    bundle: String,
}

impl Identity {
    pub fn of(service: &str, namespace: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let names = vec![format!("{service}.{namespace}.svc")];
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        Ok(Self {
            config: Arc::new(config),
            bundle: BASE64_STANDARD.encode(certificate.pem()),
        })
    }

    /// The APIServices of both groups, for the Service of this name.
    pub fn api_services(&self, service: &str, namespace: &str) -> Vec<Value> {
        GROUPS
            .map(|(group, version)| {
                json!({
                    "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                    "metadata": {"name": format!("{version}.{group}")},
                    "spec": {
                        "group": group, "version": version, "caBundle": self.bundle,
                        "groupPriorityMinimum": 100, "versionPriority": 100,
                        "service": {"name": service, "namespace": namespace, "port": 443},
                    },
                })
            })
            .into()
    }
}

const GROUPS: [(&str, &str); 2] = [
    ("custom.metrics.k8s.io", "v1beta2"),
    ("external.metrics.k8s.io", "v1beta1"),
];

/// A server in a pod. Dropping it ends its connections.
pub struct MetricsApi {
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsApi {
    pub fn start(pod: &Host, identity: &Identity, values: Arc<Values>) -> Result<Self> {
        let listen = |family| {
            let at = SocketAddr::new(pod.ip.of(family), PORT);
            let listener = pod.netns.run(|| std::net::TcpListener::bind(at));
            let listener = listener.with_context(|| format!("listening at {at}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners: Vec<_> = Family::BOTH
            .into_iter()
            .map(listen)
            .collect::<Result<_>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let [connections, requests] = [(), ()].map(|()| Arc::new(AtomicUsize::new(0)));
        let serving = Serving {
            acceptor: TlsAcceptor::from(Arc::clone(&identity.config)),
            values,
            connections: Arc::clone(&connections),
            requests: Arc::clone(&requests),
        };
        let serving = Arc::new(serving);
        let thread = thread::Builder::new()
            .name("metrics-api".into())
            .spawn(move || {
                runtime.block_on(async {
                    for listener in listeners {
                        let listener = TcpListener::from_std(listener).expect("inside a runtime");
                        tokio::spawn(Arc::clone(&serving).accept(listener));
                    }
                    // An error is the other end's drop, which means the same.
                    let _ = stopped.await;
                });
            })?;
        Ok(Self {
            connections,
            requests,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many requests it answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for MetricsApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves in a pod, which becomes the only endpoint of the Service that [`register`] made.
pub fn serve(
    cluster: &LiveCluster,
    pod: &Pod,
    identity: &Identity,
    values: &Arc<Values>,
) -> Result<MetricsApi> {
    let api = MetricsApi::start(pod, identity, Arc::clone(values))?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "metrics-a", "namespace": "default", "labels": {"kubernetes.io/service-name": "metrics"}},
        "addressType": "IPv4", "ports": [{"name": "", "protocol": "TCP", "port": PORT}],
        "endpoints": [{"addresses": [pod.ip.v4], "nodeName": pod.node, "conditions": {"ready": true}}],
    });
    cluster.client().apply(&slice)?;
    Ok(api)
}

/// Makes the Service, without a selector, and the APIServices that name it.
pub fn register(cluster: &LiveCluster, identity: &Identity) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics", "namespace": "default"},
        "spec": {"ports": [{"port": 443, "targetPort": PORT}]},
    });
    cluster.client().apply(&service)?;
    for one in identity.api_services("metrics", "default") {
        cluster.client().apply(&one)?;
    }
    Ok(())
}

/// What agents count of a Service, as `connections_per_second`, summed over the cluster: a connection counts once, at the node
/// that decided.
pub fn connections_per_second(cluster: &LiveCluster) -> Arc<Values> {
    let topology = Arc::clone(&cluster.topology);
    let rates: Mutex<BTreeMap<String, Arc<Rate>>> = Mutex::default();
    Arc::new(move |_, service, metric| {
        let count = (metric == "connections_per_second")
            .then(|| cluster::sum(&topology, CONNECTIONS, service));
        let mut rates = rates.lock().expect("nobody panics here");
        let rate = Arc::clone(rates.entry(service.to_owned()).or_default());
        drop(rates);
        rate.at(count?.ok()?)
    })
}

struct Serving {
    acceptor: TlsAcceptor,
    values: Arc<Values>,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Serving {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let serving = Arc::clone(&self);
                tokio::spawn(async move {
                    let Ok(stream) = serving.acceptor.accept(stream).await else {
                        return; // the client says why
                    };
                    serving.connections.fetch_add(1, Ordering::Relaxed);
                    let service = service_fn(|request| {
                        let answer = serving.answer(&request);
                        async { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    let served = hyper::server::conn::http1::Builder::new();
                    // Clients go as they like.
                    drop(served.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path();
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let query = request.uri().query().unwrap_or_default();
        let document = match parts[..] {
            ["apis", group, version] => Some(json!({
                "kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": format!("{group}/{version}"), "resources": [],
            })),
            [
                "apis",
                GROUP_CUSTOM,
                _,
                "namespaces",
                namespace,
                "services",
                name,
                metric,
            ] => self
                .value(namespace, name, metric)
                .map(|value| custom(namespace, name, metric, &value)),
            ["apis", GROUP_EXTERNAL, _, "namespaces", namespace, metric] => {
                let service = query
                    .split('&')
                    .find_map(|one| one.strip_prefix("labelSelector=service%3D"));
                service
                    .and_then(|service| self.value(namespace, service, metric))
                    .map(|value| external(metric, &value))
            }
            _ => None,
        };
        let code = if document.is_some() { 200 } else { 404 };
        let missing = || {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                "message": format!("{path} has no value")})
        };
        let body = document.unwrap_or_else(missing).to_string();
        Response::builder()
            .status(code)
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .expect("the status is one of HTTP's")
    }

    fn value(&self, namespace: &str, service: &str, metric: &str) -> Option<String> {
        (self.values)(namespace, service, metric).map(quantity::text)
    }
}

const GROUP_CUSTOM: &str = GROUPS[0].0;
const GROUP_EXTERNAL: &str = GROUPS[1].0;

fn custom(namespace: &str, name: &str, metric: &str, value: &str) -> Value {
    json!({
        "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
        "items": [{
            "describedObject": {"kind": "Service", "namespace": namespace, "name": name, "apiVersion": "v1"},
            "metric": {"name": metric, "selector": null}, "value": value,
        }],
    })
}

fn external(metric: &str, value: &str) -> Value {
    json!({
        "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
        "items": [{"metricName": metric, "metricLabels": {}, "value": value}],
    })
}

/// A counter's growth in a second, in thousandths, over the time between two looks that are not too close.
#[derive(Default)]
struct Rate {
    looks: Mutex<Vec<(std::time::Instant, u64)>>,
}

impl Rate {
    /// Over what time the growth is told.
    const WINDOW: std::time::Duration = std::time::Duration::from_secs(1);

    /// The rate, now that the counter stands at `count`; nothing at the first look.
    fn at(&self, count: u64) -> Option<i64> {
        let now = std::time::Instant::now();
        let mut looks = self.looks.lock().expect("nobody panics here");
        looks.push((now, count));
        // Of those that are older than the window, the youngest is kept.
        while looks.len() > 2 && now.duration_since(looks[1].0) >= Self::WINDOW {
            looks.remove(0);
        }
        let (then, before) = looks[0];
        let passed = now.duration_since(then).as_secs_f64();
        (passed > 0.0 && looks.len() > 1)
            .then(|| (count.saturating_sub(before) as f64 / passed * 1000.0) as i64)
    }
}
