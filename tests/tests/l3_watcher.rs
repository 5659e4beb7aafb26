//! kube-rs, the library of the agent's own watches, against the API server: through edits and faults it has to end in
//! exactly what the server has.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::ApiServer;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use testbed::runner::{self, row};
use tokio::time::{self, Instant};

/// As the agent selects Services.
const SELECTOR: &str = "!service.kubernetes.io/service-proxy-name";
const SERVICES: u64 = 100;
const EDITS: u64 = 2000;

/// How long the watcher may take to come to the server's state after the last fault: its backoff ends at 30 s.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);

/// One of these is added every so many edits; each but `gone` is healed before the next.
const FAULTS: [&str; 6] = [
    "gone",
    "cut watch services after 5 events",
    "duplicate services\nreorder services",
    "delay watch services 2ms",
    "gone\nfail list services 503 x1 retry-after 1",
    "gone\nslow list services 5ms per page",
];

fn main() -> ExitCode {
    let pages = watcher::Config::default().labels(SELECTOR).page_size(20);
    let streamed = watcher::Config::default()
        .labels(SELECTOR)
        .streaming_lists();
    runner::main(vec![
        row(
            "a_paged_list_and_its_watch_end_in_the_servers_state",
            None,
            || follow(pages),
        ),
        row(
            "a_streamed_list_and_its_watch_end_in_the_servers_state",
            None,
            || follow(streamed),
        ),
    ])
}

fn follow(config: watcher::Config) -> Result<()> {
    let server = ApiServer::serve(TcpListener::bind("127.0.0.1:0")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::try_from(Config::new(server.url().parse()?))?;
        let (store, writer) = reflector::store();
        let watched = watcher(Api::<Service>::all(client.clone()), config);
        let following = tokio::spawn(
            watched
                .default_backoff()
                .reflect(writer)
                .for_each(|_| std::future::ready(())),
        );
        let services = Api::namespaced(client, "default");
        let settled = async {
            edit(&server, &services, &FAULTS).await?;
            settle(&services, &store).await?;
            // No list comes after these: only the watch can tell of them.
            edit(&server, &services, &[]).await?;
            settle(&services, &store).await
        }
        .await;
        following.abort();
        settled
    })
}

/// Creates, changes, hides, shows and deletes Services at random, from a fixed seed, with the faults in between.
async fn edit(server: &ApiServer, services: &Api<Service>, faults: &[&str]) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for number in 0..EDITS {
        if number % 200 == 100 && !faults.is_empty() {
            let fault = faults[(number / 200) as usize % faults.len()];
            server.script(&format!("heal\n{fault}"))?;
        }
        let name = format!("s{}", random(SERVICES));
        let port = 1 + random(60_000);
        let change = match random(4) {
            0 if services.get_opt(&name).await?.is_some() => {
                services.delete(&name, &DeleteParams::default()).await?;
                continue;
            }
            1 => {
                json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}})
            }
            2 => {
                json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": null}}})
            }
            _ => json!({"spec": {"ports": [{"port": port}]}}),
        };
        if services.get_opt(&name).await?.is_some() {
            services
                .patch(&name, &PatchParams::default(), &Patch::Merge(&change))
                .await?;
        } else {
            let service: Value =
                json!({"metadata": {"name": name}, "spec": {"ports": [{"port": port}]}});
            services
                .create(&PostParams::default(), &serde_json::from_value(service)?)
                .await?;
        }
    }
    server.script("heal")
}

/// Waits until the store has every Service of the server in its last version, and no other.
async fn settle(services: &Api<Service>, store: &Store<Service>) -> Result<()> {
    let list = services
        .list(&ListParams::default().labels(SELECTOR))
        .await?;
    let wanted = versions(list.items.iter())?;
    ensure!(!wanted.is_empty(), "the edits left no Service to compare");
    let end = Instant::now() + SETTLED_WITHIN;
    loop {
        let state = store.state();
        let seen = versions(state.iter().map(AsRef::as_ref))?;
        if seen == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < end, "seen {seen:?}\nwanted {wanted:?}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

fn versions<'a>(services: impl Iterator<Item = &'a Service>) -> Result<BTreeMap<String, String>> {
    services
        .map(|service| {
            let metadata = &service.metadata;
            let name = metadata.name.clone().context("a Service without a name")?;
            let version = metadata.resource_version.clone();
            Ok((name, version.context("a Service without a version")?))
        })
        .collect()
}
