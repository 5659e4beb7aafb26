//! Clients that connect and send nothing, or nonsense, to what the agent serves.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use testbed::address::Family;
use testbed::cluster::Cluster;
use testbed::netns::Netns;
use testbed::patience::{eventually, patient};
use testbed::sockets::http;

use crate::world::{HEALTH_PORT, World, await_said};

/// Of each client: twice what the agent once took from all.
const CONNECTIONS: usize = 128;

/// How long an answer takes at most, however busy the machine: less than a connection that sends nothing is left.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

pub fn rows() -> Vec<Trial> {
    let world = World::new(3);
    vec![
        world.row(
            "slow connections from outside keep no probe from its answer",
            probes,
        ),
        world.row(
            "slow connections of the node itself keep no scrape from its answer",
            scrapes,
        ),
        world.row(
            "slow connections keep no health-check node port from its answer",
            checks,
        ),
        world.row(
            "requests that are no HTTP or too large are refused and forgotten",
            malformed,
        ),
    ]
}

/// Connections that have sent half a request.
fn slow(netns: &Netns, at: SocketAddr) -> Result<Vec<TcpStream>> {
    netns.run(|| {
        let connect = |_| {
            let mut stream = TcpStream::connect_timeout(&at, patient(ANSWERED_WITHIN))
                .with_context(|| format!("connecting to {at}"))?;
            // One that had to go already is as good.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost:");
            Ok(stream)
        };
        (0..CONNECTIONS).map(connect).collect()
    })
}

fn answered(netns: &Netns, at: SocketAddr, path: &str) -> Result<()> {
    let began = Instant::now();
    let answer = http::fetch(netns, at, path)?;
    ensure!(answer.status == 200, "{at}{path}: {answer:?}");
    let took = began.elapsed();
    ensure!(
        took < patient(ANSWERED_WITHIN),
        "{at}{path}: answered after {took:?}"
    );
    Ok(())
}

fn probes(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let [first, second, third] = &cluster.topology.clients[..] else {
        anyhow::bail!("three clients");
    };
    for family in Family::BOTH {
        let at = SocketAddr::new(node.host.ip.of(family), HEALTH_PORT);
        let _one = slow(&first.netns, at)?;
        let _two = slow(&second.netns, at)?;
        for path in ["/livez", "/readyz", "/healthz"] {
            // The kubelet's, then somebody else's, then those of a client that has its share of slow ones.
            answered(node.netns(), at, path)?;
            answered(&third.netns, at, path)?;
            answered(&first.netns, at, path)?;
        }
    }
    await_said(cluster, &["WARN", "10256", "turned away"])
}

fn scrapes(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
    let _slow = slow(node.netns(), at)?;
    answered(node.netns(), at, "/healthz")?;
    answered(node.netns(), at, "/metrics")
}

fn checks(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let [first, second, ..] = &cluster.topology.clients[..] else {
        anyhow::bail!("two clients");
    };
    let vip = cluster.vip("checked-slowly");
    let port = vip.node_port + 1000;
    let service = vip
        .service()
        .with("type", json!("LoadBalancer"))
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(port));
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p1")]))?;
    cluster.manifests.apply(&service)?;
    let at = SocketAddr::new(node.host.ip.of(Family::V4), port);
    eventually("the health-check node port", || {
        answered(&second.netns, at, "/")
    })?;
    let _slow = slow(&first.netns, at)?;
    answered(&second.netns, at, "/")?;
    answered(&first.netns, at, "/")?;
    answered(node.netns(), at, "/")?;
    cluster.manifests.delete(&vip.name)
}

fn malformed(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let client = cluster.topology.client();
    let at = SocketAddr::new(node.host.ip.of(Family::V4), HEALTH_PORT);
    let huge = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 1 << 20]].concat();
    client.netns.run(|| {
        for request in [
            &b"\x16\x03\x01\x00\xff"[..],
            b"\r\n\r\n\r\n",
            b"GET\0/\0\r\n\r\n",
            &huge,
        ] {
            for _ in 0..20 {
                let mut stream = TcpStream::connect_timeout(&at, patient(ANSWERED_WITHIN))?;
                // The agent may close it at any byte.
                let _ = stream.write_all(request);
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    answered(&client.netns, at, "/livez")?;
    answered(node.netns(), at, "/livez")
}
