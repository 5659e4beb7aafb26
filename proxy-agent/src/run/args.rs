//! The options of the command line.

use std::path::PathBuf;

use anyhow::Result;

use super::room;
use crate::{
    datapath::{self, Options, Sizes, TcMode, XdpMode},
    log,
    memory::Allowance,
    model,
    node::{self, NodePortAddresses, Selection, SourceCheck},
    plan::Limits,
    serve,
    source::kube,
    state::Place,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of this node, as EndpointSlices call it; in small letters, as kube-proxy takes it
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = node_name)]
    pub node_name: String,
    /// Directory of Services and EndpointSlices, read again when it changes; in place of an API server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "api_servers"])]
    pub manifests: Option<PathBuf>,
    /// The largest file that is read there
    #[arg(long, value_name = "N", default_value_t = 32 << 20)]
    pub max_manifest_bytes: u64,
    #[command(flatten)]
    pub api: kube::Options,
    /// Devices that lead out of the node: `auto` (NICs, tunnels, the default route's device), or names, those of tunnels too
    #[arg(long, value_name = "auto|NAMES", default_value = "auto")]
    pub uplinks: Selection,
    /// Host-side interfaces of pods: `auto` (veths into other network namespaces), or names (`cali*` for all that begin so)
    #[arg(long, value_name = "auto|NAMES", default_value = "auto")]
    pub workloads: Selection,
    /// Where packets are taken at uplinks
    #[arg(long, value_enum, default_value_t)]
    pub xdp: XdpMode,
    /// Under `auto`, try native XDP on software devices, too: to see what follows where frames are lost
    #[arg(long, hide = true)]
    pub xdp_on_software: bool,
    /// Whose addresses a packet may come from: as each device's rp_filter says, or `strict` for all pods' interfaces
    #[arg(long, value_enum, default_value_t)]
    pub source_check: SourceCheck,
    /// How TC programs are attached
    #[arg(long, value_enum, default_value_t)]
    pub tc: TcMode,
    /// Local addresses that serve NodePorts: `all`, `primary` (those by which other nodes know this one), or ranges
    #[arg(long, value_name = "all|primary|CIDRS", default_value = "all")]
    pub nodeport_addresses: NodePortAddresses,
    /// Addresses that no object may name, besides loopback, link-local, multicast and broadcast ones: by default those
    /// where clouds answer nodes, and 240.0.0.0/4; empty for none
    #[arg(long, value_name = "CIDRS", default_value = model::REFUSED)]
    pub refused_addresses: model::Ranges,
    /// Connections that are tracked per address family
    #[arg(long, value_name = "N", default_value_t = Sizes::default().connections)]
    pub max_flows: u32,
    #[command(flatten)]
    pub room: room::Args,
    /// Detach the programs and forget all connections when the agent ends
    #[arg(long)]
    pub cleanup_on_exit: bool,
    /// Where the kernel's switches can be written, for a container whose own /proc/sys is read-only
    #[arg(long, value_name = "DIR", default_value = "/proc/sys")]
    pub proc_sys: PathBuf,
    /// The cgroup that the node's processes are in
    #[arg(long, value_name = "DIR", hide = true)]
    pub cgroup: Option<PathBuf>,
    /// Tell by Events on a Service why it is not served as its object says
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub events: bool,
    /// How new connections of a Service find an endpoint that does not say it by the annotation portside.io/load-balancing
    #[arg(long, value_name = "random|maglev|source-hash", default_value_t, value_parser = balancing)]
    pub load_balancing: model::Balancing,
    /// Serve the `externalIPs` of Services; as kube-proxy's gate `AllowServiceExternalIPs`
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub allow_service_external_ips: bool,
    #[command(flatten)]
    pub conntrack: node::Conntrack,
    #[command(flatten)]
    pub serve: serve::Args,
    #[command(flatten)]
    pub log: log::Args,
    #[command(flatten)]
    pub place: Place,
}

fn balancing(text: &str) -> Result<model::Balancing, String> {
    text.parse()
}

/// As kube-proxy reads it (`GetHostname` in k8s.io/component-helpers).
fn node_name(text: &str) -> Result<String, String> {
    let name = text.trim().to_lowercase();
    if name.is_empty() {
        return Err("a node has a name".to_owned());
    }
    Ok(name)
}

impl Args {
    /// How far the tables may grow on this machine, and how to load the datapath: within the memory that this process may have.
    pub fn options(&self, allowance: Option<Allowance>) -> Result<(Limits, Options)> {
        let mut limits = self.room.limits();
        if let Some(allowance) = &allowance {
            let found = datapath::room(&self.place.bpffs)?;
            limits.room = room::bounded(limits.room, found, allowance, self.max_flows);
        }
        let options = Options {
            pin: Some(self.place.bpffs.clone()),
            sizes: Sizes::first(self.max_flows, &limits.room),
            limits: Some(limits.room),
            allowance,
            xdp: self.xdp,
            tc: self.tc,
        };
        Ok((limits, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_is_read_as_kube_proxy_reads_it() {
        for (text, name) in [("node1", "node1"), (" Node1.Example\n", "node1.example")] {
            assert_eq!(node_name(text).as_deref(), Ok(name));
        }
        assert!(node_name(" \n").is_err());
    }
}
