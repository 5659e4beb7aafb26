//! `proxy-agent explain`: it foretells where a packet arrives, says in one line what keeps it from arriving, and leaves no trace.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::address::{self, Family, Pair};
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cli;
use testbed::cluster::{Cluster, Vip};
use testbed::patience::{eventually, is_slow};
use testbed::pinned;
use testbed::sockets::Protocol;
use testbed::topology::{Host, Node, Plan};

use crate::world::{World, await_answer, await_everywhere, dial, open, serve};

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let world = World::of(uplink, Plan::default());
    let mut rows: Vec<_> = Client::ALL
        .into_iter()
        .map(|client| {
            world.row_beside_xdp_unless(
                is_slow().then_some(TOO_LONG),
                format!("explain foretells where {client:?} arrives"),
                move |cluster| foretold(cluster, client),
            )
        })
        .collect();
    rows.push(world.row_beside_xdp_unless(
        is_slow().then_some(TOO_LONG),
        "explain tells a connection that is known from one that would begin",
        known,
    ));
    drop(world);
    let narrow = World::without_agents(uplink, Plan::default());
    rows.push(narrow.row_beside_xdp_unless(
        is_slow().then_some(TOO_LONG),
        "explain says in one line why a service is not reachable",
        unreachable,
    ));
    let alone = World::with_first_agent(uplink, Plan::default());
    rows.push(alone.row_beside_xdp_unless(
        is_slow().then_some(TOO_LONG),
        "explain leaves every map as it was, byte by byte",
        traceless,
    ));
    rows
}

const TOO_LONG: &str = "each question loads the programs, which takes an emulated machine long";
/// A load balancer's address.
const EXTERNAL: Pair = Pair::new([203, 0, 113, 80], [0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80]);
/// An address that the node's routes refuse.
const FAR: Pair = Pair::new([203, 0, 113, 99], [0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x99]);
/// A number on the nodes' segment that nobody has.
const NOBODY: u8 = 250;

/// Who asks, by way of the first node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Client {
    Outside,
    OnLink,
    Pod,
    /// The endpoint itself.
    Itself,
    Node,
    OtherPod,
}

impl Client {
    const ALL: [Self; 6] = [
        Self::Outside,
        Self::OnLink,
        Self::Pod,
        Self::Itself,
        Self::Node,
        Self::OtherPod,
    ];

    fn host(self, cluster: &Cluster) -> &Host {
        match self {
            Self::Outside => cluster.topology.client(),
            Self::OnLink => &cluster.topology.neighbour,
            Self::Pod => cluster.pod("c1"),
            Self::Itself => cluster.pod("p1"),
            Self::Node => &cluster.node(1).host,
            Self::OtherPod => cluster.pod("c2"),
        }
    }

    /// Where it asks over each protocol: a cluster address is another node's business for a pod there, and not on the segment for who
    /// is. Both kinds of address have both protocols, in one family or the other.
    fn targets(self, cluster: &Cluster, vip: &Vip, family: Family) -> [SocketAddr; 2] {
        let node_port = vip.on_node(cluster.node(1), family);
        let cluster_ip = vip.on_cluster_ip(family);
        match (self, family) {
            (Self::OnLink | Self::OtherPod, _) => [node_port, node_port],
            (_, Family::V4) => [node_port, cluster_ip],
            (_, Family::V6) => [cluster_ip, node_port],
        }
    }
}

/// A source port that no other row has.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What the first node's command says.
fn explained(
    node: &Node,
    protocol: Protocol,
    source: SocketAddr,
    target: SocketAddr,
    more: &[&str],
) -> Result<Value> {
    let (protocol, source, target) = (
        protocol.to_string().to_lowercase(),
        source.to_string(),
        target.to_string(),
    );
    let question = ["explain", &protocol, &source, &target, "-o", "json"];
    let text = cli::ask(node, &[&question, more].concat())?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

fn answer(explanation: &Value) -> &str {
    explanation["answer"].as_str().unwrap_or_default()
}

fn socket(value: &Value) -> Result<SocketAddr> {
    let text = value
        .as_str()
        .with_context(|| format!("{value} is no address"))?;
    text.parse().with_context(|| text.to_owned())
}

/// Each kind of endpoint alone, then several, of which the hash chooses one, and session affinity the same again.
fn foretold(cluster: &Cluster, client: Client) -> Result<()> {
    let pods = ["p1", "p1b", "p2", "p2b"].map(|name| cluster.pod(name));
    let mut vips = vec![
        serve(cluster, "local", &[cluster.pod("p1")])?,
        serve(cluster, "remote", &[cluster.pod("p2")])?,
    ];
    let affine = cluster.vip("affine");
    cluster
        .manifests
        .apply_endpoints(&affine.endpoints(&pods))?;
    let sticky = ("sessionAffinity", json!("ClientIP"));
    cluster
        .manifests
        .apply(&affine.service().with(sticky.0, sticky.1))?;
    vips.push(affine);
    for number in [1, 2] {
        let vip = cluster.vip("host");
        let endpoints = vip.no_endpoints().host_network(&cluster.node(number).host);
        cluster.manifests.apply_endpoints(&endpoints)?;
        cluster.manifests.apply(&vip.service())?;
        vips.push(vip);
    }
    let host = client.host(cluster);
    for vip in &vips {
        await_everywhere(cluster, vip, |answer| answer.who().is_some())?;
        for family in Family::BOTH {
            let targets = client.targets(cluster, vip, family);
            for (protocol, target) in Protocol::BOTH.into_iter().zip(targets) {
                let times = if vip.name.starts_with("affine") { 2 } else { 1 };
                for _ in 0..times {
                    arrives(cluster, client, host, protocol, family, target)
                        .with_context(|| format!("{protocol} to {target}, {}", vip.name))?;
                }
            }
        }
    }
    Ok(())
}

/// Asks first, then sends the same packet, and compares.
fn arrives(
    cluster: &Cluster,
    client: Client,
    host: &Host,
    protocol: Protocol,
    family: Family,
    target: SocketAddr,
) -> Result<()> {
    let source = SocketAddr::new(host.ip.of(family), port());
    let place: &[&str] = match client {
        Client::Node => &["--node"],
        _ => &[],
    };
    let foretold = explained(cluster.node(1), protocol, source, target, place)?;
    ensure!(answer(&foretold).starts_with("reachable: "), "{foretold:#}");
    let sent = dial(host, protocol, target).from(source).ask();
    let Answer::Ok { who, client: seen } = &sent else {
        bail!("{sent}, and it was said: {foretold:#}");
    };
    let endpoint = socket(&foretold["rewritten"]["destination"])?;
    let server = server_at(cluster, endpoint.ip())?;
    ensure!(
        *who == format!("{server}:{}", endpoint.port()),
        "{who} answered, and {server} was foretold: {foretold:#}"
    );
    let as_source = socket(&foretold["rewritten"]["source"])?;
    ensure!(
        *seen == as_source,
        "the server saw {seen}, and {as_source} was foretold: {foretold:#}"
    );
    Ok(())
}

/// Who serves at an address.
fn server_at(cluster: &Cluster, addr: IpAddr) -> Result<String> {
    let pods = ["p1", "p1b", "p2", "p2b"];
    let is_at = |host: &Host| {
        Family::BOTH
            .iter()
            .any(|family| host.ip.of(*family) == addr)
    };
    if let Some(pod) = pods.iter().find(|name| is_at(cluster.pod(name))) {
        return Ok((*pod).to_owned());
    }
    let node = cluster.topology.nodes.iter().find(|node| node.owns(addr));
    Ok(node
        .with_context(|| format!("nobody serves at {addr}"))?
        .host
        .name
        .clone())
}

fn known(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "known", &[cluster.pod("p1"), cluster.pod("p2")])?;
    let client = cluster.pod("c1");
    for family in Family::BOTH {
        let target = vip.on_cluster_ip(family);
        await_answer(client, Protocol::Tcp, target, |answer| {
            answer.who().is_some()
        })?;
        let source = SocketAddr::new(client.ip.of(family), port());
        let ask = |more: &[&str]| explained(cluster.node(1), Protocol::Tcp, source, target, more);
        let before = ask(&[])?;
        ensure!(before["packet"]["segment"] == "SYN", "{before:#}");
        ensure!(
            step(&before, "flow")?.contains("no connection"),
            "{before:#}"
        );
        ensure!(
            step(&before, "candidates")?.starts_with("2: "),
            "{before:#}"
        );
        let mut connection = open(dial(client, Protocol::Tcp, target).from(source))?;
        for _ in 0..2 {
            ensure!(connection.ask().who().is_some(), "no answer");
        }
        let after = ask(&[])?;
        ensure!(after["packet"]["segment"] == "ACK", "{after:#}");
        let flow = step(&after, "flow")?;
        ensure!(
            flow.contains("a connection that is established") && flow.contains(&vip.name),
            "{after:#}"
        );
        ensure!(after["rewritten"] == before["rewritten"], "{after:#}");
        // The answer to it, as the pod's device sees it.
        let endpoint = socket(&after["rewritten"]["destination"])?;
        let fast = after["steps"].as_array().context("steps")?;
        ensure!(
            fast.iter().all(|step| step["path"] == "fast"),
            "an established packet took the slow path: {after:#}"
        );
        ensure!(after["endpoint"] == endpoint.to_string(), "{after:#}");
        // Text and document say the same.
        let text = cli::ask(
            cluster.node(1),
            &["explain", "tcp", &source.to_string(), &target.to_string()],
        )?;
        ensure!(text.ends_with(answer(&after)), "{text}");
    }
    Ok(())
}

/// What a step says.
fn step<'a>(explanation: &'a Value, name: &str) -> Result<&'a str> {
    let steps = explanation["steps"].as_array().context("steps")?;
    let found = steps.iter().find(|step| step["step"] == name);
    let text = found.and_then(|step| step["text"].as_str());
    text.with_context(|| format!("no step {name}: {explanation:#}"))
}

/// A question whose answer has to say this, by and by.
fn says(
    node: &Node,
    protocol: Protocol,
    source: SocketAddr,
    target: SocketAddr,
    more: &[&str],
    wanted: &[&str],
) -> Result<()> {
    eventually(&format!("{wanted:?} of {protocol} to {target}"), || {
        let explanation = explained(node, protocol, source, target, more)?;
        let answer = answer(&explanation);
        ensure!(
            wanted.iter().all(|wanted| answer.contains(wanted)),
            "{explanation:#}"
        );
        Ok(())
    })
}

fn unreachable(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let launch = cluster.launch(node);
    cluster.start_agent(&launch.with(&["--nodeport-addresses", "primary"]))?;
    let outside = cluster.topology.client();
    let pod = cluster.pod("c1");
    let empty = cluster.vip("empty");
    cluster.manifests.apply_endpoints(&empty.no_endpoints())?;
    cluster.manifests.apply(&empty.service())?;
    let elsewhere = local_elsewhere(cluster)?;
    let kept = kept_from_others(cluster)?;
    let served = serve(cluster, "served", &[cluster.pod("p1")])?;
    for family in Family::BOTH {
        let from = |host: &Host| SocketAddr::new(host.ip.of(family), port());
        for protocol in Protocol::BOTH {
            let proto = protocol.to_string().to_uppercase();
            // No endpoint.
            says(
                node,
                protocol,
                from(pod),
                empty.on_cluster_ip(family),
                &[],
                &[
                    "not reachable: ",
                    &empty.name,
                    "has no endpoint that may be used",
                ],
            )?;
            // A wrong port of a cluster address.
            let mut wrong = served.on_cluster_ip(family);
            wrong.set_port(81);
            says(
                node,
                protocol,
                from(pod),
                wrong,
                &[],
                &[
                    "not reachable: no service has port 81/",
                    &format!("80/{proto} (default/{}", served.name),
                ],
            )?;
            // Local, and the endpoint is on the other node.
            says(
                node,
                protocol,
                from(outside),
                elsewhere.on_node(node, family),
                &[],
                &["not reachable: ", &elsewhere.name, "(no-local-endpoint)"],
            )?;
            // A source that the ranges leave out.
            says(
                node,
                protocol,
                from(outside),
                kept.on_external(family),
                &[],
                &["not reachable: ", &kept.name, "(source-range)"],
            )?;
        }
    }
    not_served(cluster, &served)?;
    no_neighbour(cluster)?;
    no_route(cluster)
}

fn local_elsewhere(cluster: &Cluster) -> Result<Vip> {
    let vip = cluster.vip("elsewhere");
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p2")]))?;
    let policy = ("externalTrafficPolicy", json!("Local"));
    cluster
        .manifests
        .apply(&vip.service().with(policy.0, policy.1))?;
    Ok(vip)
}

fn kept_from_others(cluster: &Cluster) -> Result<Vip> {
    let vip = cluster.vip("kept");
    let vip = vip.behind(EXTERNAL);
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p1")]))?;
    let ranges = json!(["192.0.2.128/28", "2001:db8:ffff::/64"]);
    cluster
        .manifests
        .apply(&vip.service().with("loadBalancerSourceRanges", ranges))?;
    Ok(vip)
}

/// A node port at an address on which none are served: an address of a device of pods, which is no node's.
fn not_served(cluster: &Cluster, served: &Vip) -> Result<()> {
    let node = cluster.node(1);
    let gateway = address::pod_gateway(1);
    for family in Family::BOTH {
        let source = SocketAddr::new(cluster.pod("c1").ip.of(family), port());
        let target = SocketAddr::new(gateway.of(family), served.node_port);
        says(
            node,
            Protocol::Tcp,
            source,
            target,
            &[],
            &[
                "not reachable: ",
                &format!("is a node port of default/{}", served.name),
                "on which node ports are not served",
                &node.host.ip.of(family).to_string(),
            ],
        )?;
    }
    Ok(())
}

/// An endpoint on the nodes' segment where nobody is.
fn no_neighbour(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let nobody = address::on_segment(0, NOBODY);
    let vip = cluster.vip("nobody");
    let endpoints = vip.no_endpoints().at(nobody);
    cluster.manifests.apply_endpoints(&endpoints)?;
    cluster.manifests.apply(&vip.service())?;
    for family in Family::BOTH {
        // Somebody has asked, in vain, as clients of it would have.
        let target = SocketAddr::new(nobody.of(family), 8080);
        let asked = dial(&node.host, Protocol::Tcp, target).ask();
        ensure!(asked.who().is_none(), "{asked}");
        let source = SocketAddr::new(cluster.topology.client().ip.of(family), port());
        says(
            node,
            Protocol::Tcp,
            source,
            vip.on_node(node, family),
            &[],
            &["not reachable: ", &vip.name, "does not answer (neighbour "],
        )?;
    }
    Ok(())
}

/// An endpoint that the node's routes do not lead to.
fn no_route(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = cluster.vip("far");
    cluster
        .manifests
        .apply_endpoints(&vip.no_endpoints().at(FAR))?;
    cluster.manifests.apply(&vip.service())?;
    for family in Family::BOTH {
        let addr = FAR.of(family);
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        node.netns()
            .ip(&format!("route add unreachable {addr}/{bits}\n"))?;
        let source = SocketAddr::new(cluster.topology.client().ip.of(family), port());
        says(
            node,
            Protocol::Tcp,
            source,
            vip.on_node(node, family),
            &[],
            &[
                "not reachable: ",
                &vip.name,
                &format!("no route to {addr}"),
                "(no-route)",
            ],
        )?;
    }
    Ok(())
}

fn traceless(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let pods = ["p1", "p1b", "p2", "p2b"].map(|name| cluster.pod(name));
    let vip = cluster.vip("quiet");
    cluster.manifests.apply_endpoints(&vip.endpoints(&pods))?;
    let sticky = ("sessionAffinity", json!("ClientIP"));
    cluster
        .manifests
        .apply(&vip.service().with(sticky.0, sticky.1))?;
    let empty = cluster.vip("void");
    cluster.manifests.apply(&empty.service())?;
    await_everywhere(cluster, &vip, |answer| answer.who().is_some())?;
    await_everywhere(cluster, &empty, |answer| *answer == Answer::Refused)?;
    let clients = [
        cluster.topology.client(),
        cluster.pod("c1"),
        cluster.pod("p1"),
        &node.host,
    ];
    // One connection that stays, so that there is a flow to come upon.
    let mut connections = Vec::new();
    let mut questions = Vec::new();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let source = SocketAddr::new(cluster.topology.client().ip.of(family), port());
            let target = vip.on_node(node, family);
            let mut connection =
                open(dial(cluster.topology.client(), protocol, target).from(source))?;
            ensure!(connection.ask().who().is_some(), "no answer");
            connections.push(connection);
            questions.push((protocol, source, target));
            for client in clients {
                let source = SocketAddr::new(client.ip.of(family), port());
                for vip in [&vip, &empty] {
                    questions.push((protocol, source, vip.on_node(node, family)));
                    questions.push((protocol, source, vip.on_cluster_ip(family)));
                }
            }
        }
    }
    // The first question loads what it needs, and the node may have something to say on its own until it is quiet.
    eventually("a node that is quiet", || {
        let [first, second] = [(); 2].map(|()| {
            let contents = pinned::contents(node);
            std::thread::sleep(std::time::Duration::from_millis(300));
            contents
        });
        same(&first?, &second?)
    })?;
    let before = pinned::contents(node)?;
    for (protocol, source, target) in questions {
        let explanation = explained(node, protocol, source, target, &[])?;
        ensure!(!answer(&explanation).is_empty(), "{explanation:#}");
    }
    same(&before, &pinned::contents(node)?)?;
    drop(connections);
    Ok(())
}

/// Are these the same contents of all maps?
fn same(
    before: &BTreeMap<String, Vec<pinned::Entry>>,
    after: &BTreeMap<String, Vec<pinned::Entry>>,
) -> Result<()> {
    ensure!(before.keys().eq(after.keys()), "other maps");
    for (map, entries) in before {
        let now = &after[map];
        let other = now.iter().find(|entry| !entries.contains(entry));
        let gone = entries.iter().find(|entry| !now.contains(entry));
        ensure!(
            other.is_none() && gone.is_none(),
            "{map} has {other:02x?} that it had not, and lacks {gone:02x?}"
        );
    }
    Ok(())
}
