//! APIs of others behind this server (`kube-aggregator`): an APIService names the Service that serves a group's version, and
//! requests for it are passed on, over TLS, to that Service's ClusterIP.
//!
//! As a real one without `--enable-aggregator-routing`, the server knows no endpoints: the node that it runs on translates.
//! Connections are kept and used again.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::resource::Resource;
use super::status::Refusal;
use super::store::Store;

/// Connects from where the API server is, a process of a node.
pub type Dial = dyn Fn(SocketAddr) -> io::Result<TcpStream> + Send + Sync;

/// How long the other side may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;

#[derive(Default)]
pub struct Aggregator {
    dial: Mutex<Option<Arc<Dial>>>,
    /// The connection that is kept to each group's version.
    kept: Mutex<BTreeMap<String, Sender>>,
}

impl Aggregator {
    pub fn dial_by(&self, dial: Arc<Dial>) {
        *self.dial.lock().expect("nobody panics here") = Some(dial);
    }

    /// The groups of all APIServices, as `/apis` lists them.
    pub fn groups(store: &Store) -> Vec<Value> {
        let all = store.snapshot(Resource::ApiServices, None);
        let all = all.map(|(_, objects)| objects).unwrap_or_default();
        all.values()
            .map(|one| {
                let (group, version) = (&one["spec"]["group"], &one["spec"]["version"]);
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let version = json!({
                    "groupVersion": format!("{}/{}", text(group), text(version)), "version": version});
                json!({"name": group, "versions": [version], "preferredVersion": version})
            })
            .collect()
    }

    /// Passes a request on; nothing where its path is of no APIService.
    pub async fn pass(
        &self,
        store: &Store,
        method: &Method,
        path_and_query: &str,
    ) -> Option<Result<Response<Full<Bytes>>, Refusal>> {
        let path = path_and_query.split('?').next()?;
        let mut parts = path.strip_prefix("/apis/")?.split('/');
        let (group, version) = (parts.next()?, parts.next()?);
        let name = format!("{version}.{group}");
        let api_service = store
            .get(Resource::ApiServices, &(String::new(), name.clone()))
            .ok()?;
        let answer = self.ask(store, &name, &api_service, method, path_and_query);
        let answer = time::timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        Some(answer.map_err(|why| Refusal::new(503, format!("APIService {name}: {why}"))))
    }

    async fn ask(
        &self,
        store: &Store,
        name: &str,
        api_service: &Value,
        method: &Method,
        path_and_query: &str,
    ) -> Result<Response<Full<Bytes>>, String> {
        let request = || {
            Request::builder()
                .method(method)
                .uri(path_and_query)
                .header(hyper::header::HOST, "aggregated")
                .header("X-Remote-User", "system:kube-apiserver")
                .body(Full::default())
                .map_err(|error| error.to_string())
        };
        let kept = self.kept.lock().expect("nobody panics here").remove(name);
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
            && let Ok(answer) = sender.send_request(request()?).await
        {
            return self.read(name, sender, answer).await;
        }
        // None was kept, or it ended while nobody used it: a new one is tried once.
        let mut sender = self.connect(store, api_service).await?;
        let answer = sender.send_request(request()?).await;
        let answer = answer.map_err(|error| error.to_string())?;
        self.read(name, sender, answer).await
    }

    async fn read(
        &self,
        name: &str,
        sender: Sender,
        answer: Response<Incoming>,
    ) -> Result<Response<Full<Bytes>>, String> {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let mut kept = self.kept.lock().expect("nobody panics here");
        kept.insert(name.to_owned(), sender);
        Ok(Response::from_parts(head, Full::from(body.to_bytes())))
    }

    async fn connect(&self, store: &Store, api_service: &Value) -> Result<Sender, String> {
        let service = &api_service["spec"]["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let object = store
            .get(Resource::Services, &(namespace.clone(), name.clone()))
            .map_err(|refusal| refusal.message)?;
        let address = object["spec"]["clusterIP"].as_str().unwrap_or_default();
        let address = address
            .parse()
            .map_err(|_| format!("Service {namespace}/{name} has no ClusterIP"))?;
        let port = service["port"].as_u64().unwrap_or(443);
        let at = SocketAddr::new(
            address,
            u16::try_from(port).map_err(|error| error.to_string())?,
        );

        let dial = self.dial.lock().expect("nobody panics here").clone();
        let dial = dial.ok_or("this API server reaches no other")?;
        let connected = tokio::task::spawn_blocking(move || dial(at)).await;
        let stream = connected
            .map_err(|error| error.to_string())?
            .and_then(|stream| {
                stream.set_nonblocking(true)?;
                tokio::net::TcpStream::from_std(stream)
            })
            .map_err(|error| format!("connecting to {at}: {error}"))?;

        let config = trusting(&api_service["spec"]["caBundle"])?;
        let server = ServerName::try_from(format!("{name}.{namespace}.svc"))
            .map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(server, stream)
            .await
            .map_err(|error| format!("TLS with {at}: {error}"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Its end shows at the next request.
        tokio::spawn(async { drop(connection.await) });
        Ok(sender)
    }
}

/// A client that trusts whom a `caBundle` names: certificates in PEM, in base64.
fn trusting(bundle: &Value) -> Result<ClientConfig, String> {
    let bundle = BASE64_STANDARD.decode(bundle.as_str().unwrap_or_default());
    let bundle = bundle.map_err(|error| format!("spec.caBundle: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle) {
        let certificate = certificate.map_err(|error| format!("spec.caBundle: {error}"))?;
        let added = roots.add(certificate);
        added.map_err(|error| format!("spec.caBundle: {error}"))?;
    }
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
