//! The lists read by a client that does nothing with them: what the server and the connection cost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use api_server::ApiServer;
use testbed::sockets::http;
use testbed::topology::Node;

/// As clients of Kubernetes page by default.
const PAGE: usize = 500;

pub struct Fetched {
    pub took: Duration,
    pub bytes: usize,
}

pub fn fetch(node: &Node, server: &ApiServer) -> Result<Fetched> {
    let began = Instant::now();
    let mut bytes = 0;
    for path in [
        "/api/v1/services",
        "/apis/discovery.k8s.io/v1/endpointslices",
    ] {
        let mut token = String::new();
        loop {
            let page = http::fetch(
                node.netns(),
                server.address(),
                &format!("{path}?limit={PAGE}&continue={token}"),
            )?;
            ensure!(page.status == 200, "{path}: {}", page.head);
            bytes += page.body.len();
            let (head, _) = page
                .body
                .split_once("\"items\":")
                .context("a list without items")?;
            let Some((_, rest)) = head.split_once("\"continue\":\"") else {
                break;
            };
            token = rest.split('"').next().unwrap_or_default().to_owned();
        }
    }
    Ok(Fetched {
        took: began.elapsed(),
        bytes,
    })
}
