//! The cluster as a picture, and the ways into it.

use super::manifest;
use super::scene::Scene;

/// The topology with its addresses and hooks.
pub(super) fn draw(scene: &Scene) -> String {
    let topology = &scene.topology;
    let [node1, node2] = [0, 1].map(|n| topology.nodes[n].host.ip.v4.to_string());
    let client = topology.client().ip.v4.to_string();
    let pods = |node: &str| -> String {
        let on_node = scene.pods().filter(|pod| pod.node == node);
        on_node
            .map(|pod| format!("{} {}  ", pod.name, pod.ip.v4))
            .collect()
    };
    format!(
        "
  client {client}
     |
  router
     |
     +-- eth0 node1 {node1:<14} xdp_uplink, tc_uplink_in, tc_uplink_out
     |     +-- veth  tc_workload_in, tc_workload_out   {}visitor {}
     |
     +-- eth0 node2 {node2:<14} the same
           +-- veth  the same                          {}

  Service {}: ClusterIP {}, {}; NodePort {}
",
        pods("node1"),
        scene.visitor.ip.v4,
        pods("node2"),
        manifest::NAME,
        scene.cluster_ip.v4,
        scene.cluster_ip.v6,
        manifest::NODE_PORT,
    )
}

/// How to look around in a cluster that was kept.
pub(super) fn ways_in(scene: &Scene) -> String {
    let topology = &scene.topology;
    let node = &topology.nodes[0];
    let agent = scene.agent_command(&["get", "services", "-A"]);
    format!(
        "  as the outside client    ip netns exec {} curl http://{}:{}
  as a pod                 ip netns exec {} curl http://{}
  on node1                 nsenter --net=/run/netns/{} ip addr
  what the agent knows     nsenter --net=/run/netns/{} {agent}
  the manifests            {}   (edit them: the agents follow)

  Enter or Ctrl-C takes everything down.",
        topology.client().netns.name(),
        node.host.ip.v4,
        manifest::NODE_PORT,
        scene.visitor.netns.name(),
        scene.cluster_ip.v4,
        node.netns().name(),
        node.netns().name(),
        scene.manifests.dir().display(),
    )
}
