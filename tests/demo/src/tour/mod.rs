//! A walk through what stands on Services, with the real `kubectl` in a cluster that has controllers: each part says in a line
//! what happens, does it, and shows it by requests.

mod load_balancer;
mod node_port;
mod scaling;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use controllers::cluster::LiveCluster;
use testbed::agent::Uplink;
use testbed::cli::{self, output};
use testbed::netns::Netns;
use testbed::topology::Pod;

use super::{heading, indent, interrupt};

/// Between one request and the next, while something changes.
const PAUSE: Duration = Duration::from_millis(5);

const PICTURE: &str = "
  client   outside
     |
  router
     |
     +-- node1   API server, agent, pods      kubectl -> API server -> controllers -> pods, EndpointSlices
     +-- node2   agent, pods                                              |
                                                       agents of both nodes -> BPF maps -> packets
";

/// Shows a part, and gives the number of requests that were made meanwhile.
type Part = fn(&mut Guide<'_>) -> Result<u64>;

/// The cluster, and where to show what happens to it.
struct Guide<'a> {
    out: &'a mut dyn Write,
    cluster: &'a LiveCluster,
    /// A pod that only asks.
    visitor: &'a Pod,
}

/// Shows it on `out`.
pub fn show(out: &mut dyn Write) -> Result<()> {
    if let Some(why) = cli::no_kubectl() {
        bail!("the tour is led by kubectl: {why}");
    }
    heading(
        out,
        "Building a cluster of network namespaces with controllers and an API server",
    )?;
    let cluster = LiveCluster::build(Uplink::Xdp)?;
    let visitor = cluster.topology.nodes[1].add_pod("visitor")?;
    writeln!(out, "{PICTURE}")?;
    let guide = &mut Guide {
        out,
        cluster: &cluster,
        visitor: &visitor,
    };
    let parts: [(&str, Part); 3] = [
        (
            "NodePort: a port of every node leads to the pods",
            node_port::show,
        ),
        (
            "LoadBalancer: an address from a pool leads to the pods",
            load_balancer::show,
        ),
        (
            "Autoscaling: more connections, more pods, and back (HorizontalPodAutoscaler)",
            scaling::show,
        ),
    ];
    let mut requests = 0;
    for (number, (title, part)) in (1..).zip(parts) {
        interrupt::check()?;
        heading(guide.out, &format!("{number}. {title}"))?;
        requests += part(guide).with_context(|| title.to_owned())?;
    }
    heading(out, "Cleaning up")?;
    drop(visitor);
    drop(cluster);
    writeln!(
        out,
        "  every namespace, mount and process of the tour is gone"
    )?;
    writeln!(
        out,
        "\nDone: {requests} requests while everything changed, 0 failed."
    )?;
    Ok(())
}

impl Guide<'_> {
    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.out, "  {line}")?)
    }

    /// Runs and shows a command of `kubectl`.
    fn kubectl(&mut self, arguments: &[&str]) -> Result<()> {
        writeln!(self.out, "  $ kubectl {}", arguments.join(" "))?;
        let answer = self.cluster.kubectl(arguments)?;
        Ok(write!(self.out, "{}", indent(&answer))?)
    }

    /// Applies an object, which is shown.
    fn apply(&mut self, yaml: &str) -> Result<()> {
        writeln!(self.out, "  $ kubectl apply -f - <<END")?;
        write!(self.out, "{}", indent(yaml))?;
        let answer = self.cluster.kubectl_fed(&["apply", "-f", "-"], yaml)?;
        Ok(write!(self.out, "    END\n{}", indent(&answer))?)
    }

    /// One request by `curl`, which is shown.
    fn curl(&mut self, who: &str, from: &Netns, target: SocketAddr) -> Result<()> {
        let url = format!("http://{target}/");
        let mut curl = from.command("curl")?;
        curl.args([
            "--silent",
            "--show-error",
            "--globoff",
            "--max-time",
            "5",
            &url,
        ]);
        let answer = output(curl).with_context(|| format!("curl {url} from {who}"))?;
        Ok(writeln!(
            self.out,
            "  {who}$ curl {url:<32} {}",
            answer.trim_end()
        )?)
    }
}
