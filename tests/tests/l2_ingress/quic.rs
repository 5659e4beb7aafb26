//! QUIC, which HTTP/3 is on: UDP 443 beside TCP 443 at a load balancer's address. Its server and its client are a library's: nginx 1.22 and
//! HAProxy 2.6 as Debian has them speak none.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use testbed::address::Family;
use testbed::cluster::Cluster;
use testbed::netns::Netns;
use testbed::patience::patient;
use testbed::topology::Pod;

use crate::app::RUNTIME;
use crate::controller::SHOP;
use crate::curl::Curl;
use crate::recipe::{self, Condition, Published};
use crate::site::{EXTERNAL_OF_QUIC, Place, Site};

/// The recipe's, for both protocols.
const PORT: u16 = 443;
const TARGET_PORT: u16 = 8443;

/// So many changes of port, any of which would be to the other pod in one of two cases.
const MOVES: usize = 8;

/// Of an answer.
const MOST: usize = 1024;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

pub fn rows(place: &Place) -> Vec<Trial> {
    vec![place.row(
        "a QUIC connection goes on when its client's port changes",
        migration,
    )]
}

pub fn publish(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    let recipe = recipe::block("HTTP/3")?;
    for port in recipe["spec"]["ports"].as_array().into_iter().flatten() {
        let as_here = port["port"] == PORT && port["targetPort"] == TARGET_PORT;
        ensure!(as_here, "{port}");
    }
    let service = Published::of(&recipe, cluster.vip("ingress").ip)?.at(EXTERNAL_OF_QUIC);
    service.apply(&cluster.manifests)?;
    let pods: Vec<_> = pods.iter().map(|pod| (pod, Condition::Ready)).collect();
    service.apply_endpoints(&cluster.manifests, &pods)
}

fn migration(site: &Site) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([SHOP.to_owned()])?;
    let certificate = made.cert.der().clone();
    let _servers = site.pods[..2]
        .iter()
        .flat_map(|pod| Family::BOTH.map(|family| (pod, family)))
        .map(|(pod, family)| {
            let key = made.signing_key.serialize_der();
            serve(pod, family, certificate.clone(), key.into())
        })
        .collect::<Result<Vec<_>>>()?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    for family in Family::BOTH {
        let to = SocketAddr::new(EXTERNAL_OF_QUIC.of(family), PORT);
        let asking = move_on(&site.client().netns, to, config.clone());
        let limited = async { tokio::time::timeout(patient(LIMIT), asking).await };
        let asked = RUNTIME.block_on(limited).context("in time");
        let pod = asked
            .and_then(|asked| asked)
            .with_context(|| format!("QUIC at {to}"))?;

        // The same client over TCP is with the same pod, whose HTTP answers at the same port.
        let trusted = site.certificates.certificate(SHOP);
        let curl = Curl::new(site.client(), SHOP, to).trusting(&trusted);
        let reply = curl.get("/")?;
        ensure!(reply.status == 200, "{reply:?}");
        eprintln!(
            "{to}: QUIC with {pod}, TCP with {}",
            reply.field("ingress")?
        );
    }
    Ok(())
}

/// Asks from one port after the other by the same connection; gives the pod that answered them all.
async fn move_on(netns: &Netns, to: SocketAddr, config: ClientConfig) -> Result<String> {
    let socket = || socket(netns, SocketAddr::new(unspecified(to), 0));
    let mut endpoint = Endpoint::new(
        EndpointConfig::default(),
        None,
        socket()?,
        Arc::new(TokioRuntime),
    )?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(to, SHOP)?.await?;
    let (pod, mut port) = ask(&connection).await?;
    for moves in 1..=MOVES {
        endpoint.rebind(socket()?)?;
        let (now, moved) = ask(&connection)
            .await
            .with_context(|| format!("after {moves} changes of port"))?;
        ensure!(now == pod, "it was with {pod} and is with {now}");
        ensure!(moved != port, "the server saw the port {port} twice");
        port = moved;
    }
    Ok(pod)
}

fn unspecified(to: SocketAddr) -> std::net::IpAddr {
    match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The pod that answers, and the port that it sees.
async fn ask(connection: &Connection) -> Result<(String, String)> {
    let (mut sending, mut receiving) = connection.open_bi().await?;
    sending.write_all(b"who").await?;
    sending.finish()?;
    let answer = String::from_utf8(receiving.read_to_end(MOST).await?)?;
    let (pod, port) = answer.split_once(' ').context("a pod and a port")?;
    Ok((pod.to_owned(), port.to_owned()))
}

/// Dropped, it ends.
struct Server(Endpoint);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.close(0u32.into(), b"the end");
    }
}

fn serve(
    pod: &Pod,
    family: Family,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
) -> Result<Server> {
    let config = ServerConfig::with_single_cert(vec![certificate], key.into())?;
    let at = SocketAddr::new(pod.ip.of(family), TARGET_PORT);
    let socket = socket(&pod.netns, at)?;
    let _inside = RUNTIME.enter();
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(config),
        socket,
        Arc::new(TokioRuntime),
    )?;
    let (serving, name) = (endpoint.clone(), pod.name.clone());
    RUNTIME.spawn(async move {
        while let Some(coming) = serving.accept().await {
            let name = name.clone();
            tokio::spawn(async move {
                // An error here is the client's end, which reports it.
                drop(answer(coming, &name).await);
            });
        }
    });
    Ok(Server(endpoint))
}

async fn answer(coming: quinn::Incoming, name: &str) -> Result<()> {
    let connection = coming.await?;
    loop {
        let (mut sending, mut receiving) = connection.accept_bi().await?;
        receiving.read_to_end(MOST).await?;
        let port = connection.remote_address().port();
        sending
            .write_all(format!("{name} {port}").as_bytes())
            .await?;
        sending.finish()?;
    }
}

fn socket(netns: &Netns, at: SocketAddr) -> Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind(at));
    socket.with_context(|| format!("a socket at {at}"))
}
