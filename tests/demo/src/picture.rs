//! The cluster as a picture, and the ways into it.

use std::fmt::Write;
use std::iter::once;

use super::manifest;
use super::scene::Scene;
use testbed::address::Pair;
use testbed::topology::Host;

/// The topology with its addresses and hooks.
pub(super) fn draw(scene: &Scene) -> String {
    let topology = &scene.topology;
    let mut picture = format!(
        "\n  {}   outside\n     |\n  router\n",
        entry(topology.client())
    );
    for node in &topology.nodes {
        let _ = write!(
            picture,
            "     |\n     +-- {}   eth0: xdp_uplink, tc_uplink_in, tc_uplink_out\n",
            entry(&node.host)
        );
        let visitor = once(&scene.visitor);
        for pod in scene
            .pods()
            .chain(visitor)
            .filter(|pod| pod.node == node.name())
        {
            let _ = writeln!(
                picture,
                "     |     +-- {}   {}: tc_workload_in, tc_workload_out",
                entry(pod),
                pod.host_interface
            );
        }
    }
    let Pair { v4, v6 } = scene.cluster_ip;
    let (name, port, node_port) = (manifest::NAME, manifest::PORT, manifest::NODE_PORT);
    picture
        + &format!(
            "\n  Service {name}: ClusterIP {v4} and {v6}, port {port}; port {node_port} of both nodes\n"
        )
}

fn entry(host: &Host) -> String {
    let Pair { v4, v6 } = host.ip;
    // An address takes a width only as text.
    format!(
        "{:<8} {:<11} {:<17}",
        host.name,
        v4.to_string(),
        v6.to_string()
    )
}

fn what_the_agents_follow(scene: &Scene) -> String {
    match (scene.manifests(), scene.kubeconfig()) {
        (Ok(manifests), _) => format!(
            "the manifests            {}   (edit them: the agents follow)",
            manifests.dir().display()
        ),
        (_, Ok(kubeconfig)) => format!(
            "the API server           nsenter --net=/run/netns/{} kubectl --kubeconfig {} get services",
            scene.topology.router.netns.name(),
            kubeconfig.display()
        ),
        (Err(error), _) => error.to_string(),
    }
}

/// How to look around in a cluster that was kept.
pub(super) fn ways_in(scene: &Scene) -> String {
    let topology = &scene.topology;
    let node = &topology.nodes[0];
    let agent = scene.agent_command(&["get", "services", "-A"]);
    format!(
        "  as the outside client    ip netns exec {} curl --silent http://{}:{}
  as a pod                 ip netns exec {} curl --silent http://{}
  on node1                 nsenter --net=/run/netns/{} ip addr
  what the agent knows     nsenter --net=/run/netns/{} {agent}
  {}

  Enter or Ctrl-C takes everything down.",
        topology.client().netns.name(),
        node.host.ip.v4,
        manifest::NODE_PORT,
        scene.visitor.netns.name(),
        scene.cluster_ip.v4,
        node.netns().name(),
        node.netns().name(),
        what_the_agents_follow(scene),
    )
}
