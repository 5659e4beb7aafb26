//! Two nodes with two applications, and a controller behind each way in.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use testbed::address::{Family, Pair};
use testbed::agent::Uplink;
use testbed::cluster::Cluster;
use testbed::manifests::Service;
use testbed::masquerade;
use testbed::patience::eventually;
use testbed::runner::{Shared, ignorable_cluster_row};
use testbed::topology::{Host, Plan, Pod};

use crate::app::{self, App};
use crate::certificates::Certificates;
use crate::controller::{self, BLOG, Controller, Kind, SHOP, Settings};
use crate::curl::Curl;
use crate::process::Process;
use crate::recipe::{self, Condition, Ports, Published};

/// What the pods' links take, which the pods do not know.
const NARROW: u16 = 1400;

/// Where the router leads to the first node.
const EXTERNAL: Pair = Pair::new([10, 96, 200, 1], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x2001]);
pub const EXTERNAL_OF_QUIC: Pair =
    Pair::new([10, 96, 200, 2], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x2002]);

/// What the API server gives a Service of type LoadBalancer besides what it asks for.
pub const NODE_PORTS: u16 = 31_000;
pub const CHECK_PORT: u16 = 32_080;

/// A way to a controller.
pub struct Way {
    pub name: &'static str,
    pub ip: Pair,
    pub ports: Ports,
    /// Who may serve it, and what is served by it sees the client.
    pub keeps_client: bool,
}

impl Way {
    pub fn http(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.ip.of(family), self.ports.http)
    }

    pub fn https(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.ip.of(family), self.ports.https)
    }

    pub fn grpc(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.ip.of(family), self.ports.grpc)
    }
}

// Dropped in this order: what is served before where it runs.
pub struct Site {
    /// In pods of the first and the second node.
    pub controllers: Vec<Controller>,
    pub balancer: Option<Process>,
    pub balanced: Option<Pair>,
    _apps: Vec<App>,
    pub pods: Vec<Pod>,
    pub certificates: Certificates,
    pub ways: Vec<Way>,
    pub cluster: Cluster,
}

impl AsRef<Cluster> for Site {
    fn as_ref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Where rows of one kind of controller and one kind of uplinks happen.
pub struct Place {
    site: Arc<Shared<Site>>,
    pub kind: Kind,
    uplink: Uplink,
}

impl Place {
    pub fn new(kind: Kind, uplink: Uplink) -> Self {
        let site = Shared::new(move || Site::build(kind, uplink));
        Self { site, kind, uplink }
    }

    pub fn row(
        &self,
        name: &str,
        test: impl FnOnce(&Site) -> Result<()> + Send + 'static,
    ) -> Trial {
        let missing = missing(self.kind);
        let name = format!("{}: {}: {name}", hook(self.uplink), self.kind.name());
        ignorable_cluster_row(name, missing, &self.site, |site| {
            test(site).map_err(|error| error.context(site.logs()))
        })
    }
}

pub fn hook(uplink: Uplink) -> &'static str {
    match uplink {
        Uplink::Xdp => vm_protocol::WITH_XDP,
        Uplink::Tc => vm_protocol::WITH_TC,
    }
}

/// Why rows with this kind of controller cannot run here, if so.
pub fn missing(kind: Kind) -> Option<&'static str> {
    let no_rules = (!masquerade::available()).then_some(masquerade::MISSING);
    let no_balancer = controller::missing(Kind::Haproxy);
    no_rules.or(controller::missing(kind)).or(no_balancer)
}

/// The two applications behind their cluster addresses.
pub struct Apps {
    pub shop: Pair,
    pub blog: Pair,
    pub running: Vec<App>,
}

impl Apps {
    /// The shop's on both nodes, the blog's on the second one.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let [first, second] = [1, 2].map(|node| cluster.node(node));
        let running = vec![
            App::start("shop", first.add_pod("shop1")?)?,
            App::start("shop", second.add_pod_behind("shop2", NARROW)?)?,
            App::start("blog", second.add_pod("blog1")?)?,
        ];
        let publish = |name: &str, apps: &[App]| -> Result<Pair> {
            let ip = cluster.vip(name).ip;
            let endpoints = apps.iter().fold(app::endpoints(name), |endpoints, app| {
                endpoints.pod(&app.pod)
            });
            cluster.manifests.apply_endpoints(&endpoints)?;
            cluster
                .manifests
                .apply(&app::service(Service::new(name, ip)))?;
            Ok(ip)
        };
        Ok(Self {
            shop: publish("shop", &running[..2])?,
            blog: publish("blog", &running[2..])?,
            running,
        })
    }
}

impl Site {
    fn build(kind: Kind, uplink: Uplink) -> Result<Self> {
        let cluster = Cluster::build(&Plan::default(), uplink)?;
        let apps = Apps::start(&cluster)?;
        let certificates = Certificates::create(
            cluster.topology.run.directory("certificates")?,
            &[SHOP, BLOG],
        )?;
        let [first, second] = [1, 2].map(|number| cluster.node(number));
        let pods = vec![
            first.add_pod_behind("i1", NARROW)?,
            second.add_pod_behind("i2", NARROW)?,
            second.add_pod_behind("i3", NARROW)?,
        ];

        let by_node_ports = recipe::block("Behind node ports")?;
        let by_node_ports = Published::of(&by_node_ports, cluster.vip("ingress").ip)?;
        let by_balancer = recipe::block("Behind a load balancer's address")?;
        let by_balancer = Published::of(&by_balancer, cluster.vip("ingress").ip)?
            .at(EXTERNAL)
            .with_node_ports(NODE_PORTS)
            .with("healthCheckNodePort", json!(CHECK_PORT));
        let ready = |pod| (pod, Condition::Ready);
        for service in [&by_node_ports, &by_balancer] {
            service.apply(&cluster.manifests)?;
            service.apply_endpoints(&cluster.manifests, &[ready(&pods[0]), ready(&pods[1])])?;
        }
        let proxied = recipe::blocks("Behind a load balancer that is a proxy")?;
        let balanced = crate::proxied::publish(&cluster, &proxied, &pods[..2])?;
        crate::quic::publish(&cluster, &pods[..2])?;

        let on_host = recipe::block("On the host's network")?;
        ensure!(
            on_host["spec"]["template"]["spec"]["hostNetwork"] == true,
            "not on the host's network"
        );
        let on_host = Ports::of_container(&on_host, "containerPort")?;
        let by_host_ports = recipe::block("By host ports")?;
        let host_ports = Ports::of_container(&by_host_ports, "hostPort")?;
        let behind_host_ports = Ports::of_container(&by_host_ports, "containerPort")?;
        map_ports(&second.host, &pods[2], host_ports, behind_host_ports)?;

        let start = |host: &Host, name: &str, ports, proxied| {
            let settings = Settings {
                name,
                ports,
                proxied,
                shop: apps.shop,
                blog: apps.blog,
                certificates: &certificates,
                // Few, so that many connections to the applications are opened.
                requests: 5,
            };
            let directory = cluster
                .topology
                .run
                .directory(&format!("{name}.controller"))?;
            Controller::start(kind, &host.netns, directory, &settings)
        };
        let inside = by_node_ports.ports("targetPort")?;
        let controllers = vec![
            start(&pods[0], "i1", inside, Some(crate::proxied::PORT))?,
            start(&pods[1], "i2", inside, Some(crate::proxied::PORT))?,
            start(&pods[2], "i3", behind_host_ports, None)?,
            start(&first.host, "node1", on_host, None)?,
        ];
        let node_ports = by_node_ports.ports("nodePort")?;
        let ways = vec![
            Way {
                name: "node ports",
                ip: first.host.ip,
                ports: node_ports,
                keeps_client: false,
            },
            Way {
                name: "a load balancer's address",
                ip: EXTERNAL,
                ports: by_balancer.ports("port")?,
                keeps_client: true,
            },
            Way {
                name: "the host's network",
                ip: first.host.ip,
                ports: on_host,
                keeps_client: true,
            },
            Way {
                name: "host ports",
                ip: second.host.ip,
                ports: host_ports,
                keeps_client: true,
            },
        ];
        let directory = cluster.topology.run.directory("balancer")?;
        let balancer = crate::proxied::balance(&cluster, directory)?;
        cluster.start_agents()?;
        let site = Self {
            controllers,
            balancer: Some(balancer),
            balanced: Some(balanced),
            _apps: apps.running,
            pods,
            certificates,
            ways,
            cluster,
        };
        site.await_controllers()
            .map_err(|error| error.context(site.logs()))?;
        Ok(site)
    }

    pub fn client(&self) -> &Host {
        self.cluster.topology.client()
    }

    /// Each way in each family, with words for it.
    pub fn asked(&self) -> impl Iterator<Item = (&Way, Family, String)> {
        self.ways.iter().flat_map(|way| {
            Family::BOTH.map(|family| (way, family, format!("by {} over {family}", way.name)))
        })
    }

    /// Asks for the shop by every way.
    pub fn curl<'a>(&'a self, from: &'a Host, way: &Way, family: Family) -> Curl<'a> {
        Curl::new(from, SHOP, way.http(family))
    }

    /// Waits until every way answers.
    fn await_controllers(&self) -> Result<()> {
        for (way, family, words) in self.asked() {
            eventually(&words, || {
                let reply = self.curl(self.client(), way, family).get("/")?;
                ensure!(reply.status == 200, "{reply:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    pub fn logs(&self) -> String {
        let balancer = self.balancer.as_ref().map(Process::said);
        let logs = self.controllers.iter().map(Controller::log);
        logs.chain(balancer).collect()
    }
}

/// What the CNI's portmap plugin writes for host ports (nftables, with `snat`).
fn map_ports(node: &Host, pod: &Pod, from: Ports, to: Ports) -> Result<()> {
    let table = |family: Family| {
        let (ip, from_itself) = match family {
            Family::V4 => (
                "ip",
                format!("ip saddr 127.0.0.1 ip daddr {} masquerade\n", pod.ip.v4),
            ),
            Family::V6 => ("ip6", String::new()),
        };
        let own = pod.ip.of(family);
        let pairs = [
            (from.http, to.http),
            (from.https, to.https),
            (from.grpc, to.grpc),
        ];
        let rules = pairs
            .map(|(from, to)| format!("tcp dport {from} dnat to {}\n", SocketAddr::new(own, to)));
        format!(
            "table {ip} cni_hostport {{\n\
             chain hostports {{\n{}}}\n\
             chain prerouting {{\ntype nat hook prerouting priority dstnat;\nfib daddr type local jump hostports\n}}\n\
             chain output {{\ntype nat hook output priority -100;\nfib daddr type local jump hostports\n}}\n\
             chain masquerading {{\ntype nat hook postrouting priority srcnat;\n\
             {ip} saddr {own} {ip} daddr {own} masquerade\n{from_itself}}}\n\
             }}\n",
            rules.concat()
        )
    };
    let script = Family::BOTH.map(table).concat();
    node.netns
        .batch("nft", &["-f", "-"], &script)
        .context("mapping host ports")
}
