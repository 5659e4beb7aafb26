//! L2 in a virtual machine: an outside client behind its virtio NIC, which is one more uplink of a node, with native XDP.
//!
//! The client is on the host (`testbed::outside`); everything else is a topology in the machine.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::address::Family;
use testbed::agent::{self, Uplink};
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::outside::{self, CLIENT, MACHINE};
use testbed::patience::eventually;
use testbed::runner::{self, Shared, cluster_row};
use testbed::sockets::Protocol;
use testbed::topology::Plan;
use testbed::xdp;

/// What the NIC is called on the node.
const NIC: &str = "nic0";

/// The backends: a pod of the node with the NIC, one of the other node, the node itself.
const BACKENDS: [&str; 3] = ["p1", "p2", "node1"];

struct World {
    cluster: Cluster,
    services: BTreeMap<&'static str, Vip>,
}

impl AsRef<Cluster> for World {
    fn as_ref(&self) -> &Cluster {
        &self.cluster
    }
}

fn main() -> ExitCode {
    let world = Shared::new(World::start);
    let mut rows = vec![cluster_row(
        "virtio: the NIC has native XDP",
        &world,
        native,
    )];
    for backend in BACKENDS {
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                rows.push(row(&world, backend, family, protocol));
            }
        }
    }
    runner::main(rows)
}

fn row(
    world: &Arc<Shared<World>>,
    backend: &'static str,
    family: Family,
    protocol: Protocol,
) -> libtest_mimic::Trial {
    let name = format!("virtio: outside->{backend}/{family}/{protocol:?}").to_lowercase();
    cluster_row(name, world, move |world| {
        world.serves(backend, family, protocol)
    })
}

impl World {
    fn start() -> Result<Self> {
        let mut cluster = Cluster::build(&Plan::default(), Uplink::Xdp)?;
        let device = virtio_device()?;
        let node = &mut cluster.topology.nodes[0];
        let moved = Command::new("ip")
            .args([
                "link",
                "set",
                &device,
                "netns",
                node.netns().name(),
                "name",
                NIC,
            ])
            .status()?;
        ensure!(moved.success(), "moving {device} to the node: {moved}");
        node.netns().ip(&format!(
            "addr add {}/24 dev {NIC}\naddr add {}/64 dev {NIC} nodad\nlink set {NIC} up\n",
            MACHINE.v4, MACHINE.v6
        ))?;
        node.add_uplink(NIC);
        let mut services = BTreeMap::new();
        for backend in ["p1", "p2"] {
            services.insert(backend, cluster.publish(backend, &[cluster.pod(backend)])?);
        }
        let vip = cluster.vip("node1");
        let endpoints = vip.no_endpoints().host_network(&cluster.node(1).host);
        cluster.manifests.apply_endpoints(&endpoints)?;
        cluster.manifests.apply(&vip.service())?;
        services.insert("node1", vip);
        cluster.start_agents()?;
        Ok(Self { cluster, services })
    }

    /// The first request may meet a NIC that is not up yet.
    fn serves(&self, backend: &str, family: Family, protocol: Protocol) -> Result<()> {
        let node = self.cluster.node(1);
        let port = self.services[backend].node_port;
        let target = std::net::SocketAddr::new(MACHINE.of(family), port);
        let answer = eventually("an answer", || {
            let answer = outside::ask(node.netns(), protocol, target)?;
            ensure!(answer.who().is_some(), "{protocol} {target}: {answer}");
            Ok(answer)
        })?;
        let expected = format!("{backend}:{PORT}");
        ensure!(answer.who() == Some(&expected), "{answer}");
        let testbed::answer::Answer::Ok { client, .. } = &answer else {
            anyhow::bail!("{answer}");
        };
        // Only a backend of another node is reached under this node's address.
        let seen = match backend {
            "p2" => node.host.ip.of(family),
            _ => CLIENT.of(family),
        };
        ensure!(client.ip() == seen, "the server saw {client}, not {seen}");
        // To another node, the first packet may be TC's, which finds the next hop.
        let is_here = backend != "p2";
        ensure!(
            !is_here || xdp::translated(&self.cluster)? > 0,
            "XDP translated nothing"
        );
        Ok(())
    }
}

/// The agent was started with `--xdp native`; the kernel says what is attached.
fn native(world: &World) -> Result<()> {
    let node = world.cluster.node(1);
    let output = node
        .netns()
        .command(agent::binary().context("no agent")?)?
        .args(["doctor", "--output", "json", "--xdp", "native"])
        .args(["--uplinks", NIC, "--bpffs"])
        .arg(&node.bpffs)
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("doctor's report")?;
    let checks = report["checks"].as_array().context("no checks")?;
    let nic = checks.iter().find(|check| check["name"] == NIC);
    let nic = nic.with_context(|| format!("no check {NIC} in {report:#}"))?;
    ensure!(
        nic["follows"] == "native XDP and TC: they are attached; named by --uplinks",
        "{nic:#}"
    );
    Ok(())
}

/// The only device that this driver has.
fn virtio_device() -> Result<String> {
    for entry in fs::read_dir("/sys/class/net").context("reading /sys/class/net")? {
        let entry = entry?;
        let driver = fs::read_link(entry.path().join("device/driver"));
        if driver.is_ok_and(|driver| driver.ends_with("virtio_net")) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("the machine has no virtio NIC")
}
