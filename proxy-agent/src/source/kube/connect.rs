//! Finds the API servers, and chooses the one to ask.
//!
//! The agent must not need the service address that it implements itself: inside a cluster, `KUBERNETES_SERVICE_HOST` is
//! that address until somebody says otherwise, so `--api-servers` names the servers themselves.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{RETRY_AFTER, USER_AGENT},
};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::source::Heard;

/// A SYN that was lost is sent again after 1 s; a server that comes back is to be noticed soon.
const CONNECT: Duration = Duration::from_secs(3);
/// A watch has a word at least this often, or its server is gone without one, and another is asked. It is asked for to end before.
pub const READ: Duration = Duration::from_secs(120);
/// The longest that a server may ask to be left alone.
const REST: Duration = Duration::from_secs(30);
/// Where a pod finds its credentials.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How to reach the API server; with none of it, as a pod does.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// File with the API server's address and credentials; without it, those that a pod is given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// API servers by their own addresses, the preferred one first: another one is asked while one does not answer
    #[arg(long, value_name = "URL,URL", value_delimiter = ',', value_parser = server)]
    pub api_servers: Vec<Uri>,
}

/// The URL of an API server.
fn server(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err("not the URL of a server, as https://192.0.2.1:6443 is one".to_owned()),
    }
}

/// A client for all of the servers. None of them is asked yet. `heard` is told when one answers.
pub async fn client(options: &Options, heard: &Heard) -> Result<Client> {
    let mut config = config(options).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    // Who follows a kind of object tries again by itself, and here another server is next.
    config.default_retry = false;
    let servers = if options.api_servers.is_empty() {
        vec![config.cluster_url.clone()]
    } else {
        options.api_servers.clone()
    };
    let clients = servers
        .into_iter()
        .map(|server| {
            let mut config = config.clone();
            config.cluster_url = server.clone();
            let client = Client::try_from(config)
                .with_context(|| format!("the credentials for API server {server}"))?;
            Ok((server, client))
        })
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = clients.iter().map(|(uri, _)| uri.to_string()).collect();
    info!("API server: {}", names.join(", "));
    heard.name(named(&names.join(", ")));
    Ok(Servers::of(clients, heard).client(config.default_namespace))
}

async fn config(options: &Options) -> Result<Config> {
    if let Some(path) = &options.kubeconfig {
        let from = || format!("--kubeconfig {}", path.display());
        let file = Kubeconfig::read_from(path).with_context(from)?;
        return Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .with_context(from);
    }
    match (Config::incluster_env(), options.api_servers.first()) {
        (Ok(config), _) => Ok(config),
        (Err(_), Some(_)) if Path::new(TOKEN).exists() => {
            Config::incluster_dns().context("the pod's credentials")
        }
        // A server that wants no credentials.
        (Err(_), Some(first)) => Ok(Config::new(first.clone())),
        (Err(error), None) => bail!(
            "nothing to read Services from: give --manifests DIR, --kubeconfig FILE or --api-servers URLS, or run in a cluster's pod ({error})"
        ),
    }
}

/// What audit logs and flow control call this client.
const CLIENT: HeaderValue =
    HeaderValue::from_static(concat!("proxy-agent/", env!("CARGO_PKG_VERSION")));

/// The servers, and which of them answered last.
#[derive(Clone)]
struct Servers {
    all: Arc<[Server]>,
    current: Arc<AtomicUsize>,
    heard: Heard,
}

struct Server {
    uri: Uri,
    client: Client,
    /// It asked not to be asked before.
    rests_until: Mutex<Option<Instant>>,
}

impl Server {
    fn rests_until(&self) -> Option<Instant> {
        let until = self.rests_until.lock();
        let until = *until.unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }

    async fn ask(&self, request: Request<Body>) -> kube::Result<Response<Body>> {
        let answer = self.client.send(request).await;
        if let Ok(response) = &answer
            && let Some(rest) = rest(response.headers())
        {
            let until = self.rests_until.lock();
            *until.unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + rest);
        }
        answer
    }
}

/// How long a server wants to be left alone: seconds, as API servers write them with 429 and 503 (RFC 9110, 10.2.3).
fn rest(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(REST))
}

impl Servers {
    fn of(clients: Vec<(Uri, Client)>, heard: &Heard) -> Self {
        let server = |(uri, client)| Server {
            uri,
            client,
            rests_until: Mutex::default(),
        };
        Self {
            all: clients.into_iter().map(server).collect(),
            current: Arc::default(),
            heard: heard.clone(),
        }
    }

    fn client(self, namespace: String) -> Client {
        let service = tower::service_fn(move |request| {
            let servers = self.clone();
            async move { servers.ask(request).await }
        });
        Client::new(service, namespace)
    }

    /// Asks the servers in turn until one answers; one that rests only when it is the last, and when it has rested. All
    /// requests of this source are reads without a body; an Event that two servers are told of has one name.
    async fn ask(self, request: Request<Body>) -> kube::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        parts.headers.insert(USER_AGENT, CLIENT);
        let count = self.all.len();
        let first = self.current.load(Ordering::Relaxed);
        let mut turn = 0;
        loop {
            let number = (first + turn) % count;
            let server = &self.all[number];
            turn += 1;
            match server.rests_until() {
                Some(_) if turn < count => continue,
                Some(until) => sleep_until(until).await,
                None => {}
            }
            let request = Request::from_parts(parts.clone(), Body::from(body.to_vec()));
            let answer = server.ask(request).await;
            let failed = match &answer {
                Ok(response) => {
                    let status = response.status();
                    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
                }
                Err(_) => true,
            };
            if failed && turn < count {
                continue;
            }
            if !failed && self.current.swap(number, Ordering::Relaxed) != number {
                warn!(
                    "API server {} answers now in place of another one",
                    server.uri
                );
            }
            // A watch that begins again says nothing until something happens.
            if answer
                .as_ref()
                .is_ok_and(|response| response.status().is_success())
                && let Some(what) = super::asked_for(parts.uri.path())
            {
                self.heard.is_over(what);
            }
            if !failed {
                self.heard.now(Some(named(&server.uri.to_string())));
            }
            return answer;
        }
    }
}

fn named(servers: &str) -> String {
    format!("API server {}", servers.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_with_a_host() {
        for good in ["https://192.0.2.1:6443", "http://[2001:db8::1]:8080"] {
            assert_eq!(
                server(good).unwrap().to_string().trim_end_matches('/'),
                good
            );
        }
        for bad in ["192.0.2.1:6443", "ftp://a", "https://", "", "https:///a"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    /// One that answers so, and counts how often it is asked.
    fn answering(status: u16, retry_after: Option<u64>) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let server = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header(RETRY_AFTER, seconds);
            }
            std::future::ready(response.body(Body::empty()))
        });
        (Client::new(server, "default"), asked)
    }

    async fn ask(servers: &Servers) -> StatusCode {
        let answer = servers.clone().ask(Request::new(Body::empty())).await;
        answer.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_left_alone_for_as_long_as_it_asks() {
        for (seconds, rest) in [(7, 7), (86_400, 30)] {
            let (client, asked) = answering(429, Some(seconds));
            let servers = Servers::of(
                vec![("http://192.0.2.1".parse().unwrap(), client)],
                &Heard::default(),
            );
            let began = Instant::now();
            assert_eq!(ask(&servers).await, 429);
            assert_eq!(began.elapsed(), Duration::ZERO);
            assert_eq!(ask(&servers).await, 429);
            assert!(began.elapsed() >= Duration::from_secs(rest));
            assert!(began.elapsed() < Duration::from_secs(rest + 1));
            assert_eq!(asked.load(Ordering::Relaxed), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn meanwhile_another_server_is_asked() {
        let (busy, asked) = answering(503, Some(7));
        let (idle, _) = answering(200, None);
        let uri = |text: &str| text.parse().unwrap();
        let heard = Heard::default();
        let servers = Servers::of(
            vec![
                (uri("http://192.0.2.1"), busy),
                (uri("http://192.0.2.2"), idle),
            ],
            &heard,
        );
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(ask(&servers).await, 200);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        heard.trouble("this node", "no answer");
        heard.trouble("Services", "no answer");
        let request = Request::get("/api/v1/nodes?watch=true").body(Body::empty());
        servers.ask(request.unwrap()).await.unwrap();
        let told = heard.told();
        assert_eq!(told.trouble.into_keys().collect::<Vec<_>>(), ["Services"]);
        assert_eq!(told.name, "API server http://192.0.2.2");
        assert!(told.at.is_some());
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let options = Options {
            kubeconfig: Some("/nonexistent/kubeconfig".into()),
            ..Options::default()
        };
        let error = client(&options, &Heard::default()).await.err().unwrap();
        let text = format!("{error:#}");
        assert!(
            text.contains("--kubeconfig /nonexistent/kubeconfig"),
            "{text}"
        );
    }
}
