//! `proxy-agent get`: services, backends and node ports, as the datapath has them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use proxy_common::abi::{FrontendKind, backend_flags};

use super::{Place, table::Table};
use crate::{
    datapath::Maps,
    plan::{FrontendAt, Image},
    run::{Name, Names},
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    what: What,
    /// Namespace of the services
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Services of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum What {
    #[value(alias = "svc", alias = "service")]
    Services,
    #[value(alias = "backend")]
    Backends,
    #[value(alias = "nodeport")]
    Nodeports,
}

pub fn get(args: &Args) -> Result<()> {
    let maps = args.place.pins().open_maps()?;
    let shown = Shown {
        image: maps.image()?,
        names: Names::read(&args.place.names())?,
        args,
    };
    match args.what {
        What::Services => services(&shown, &maps)?,
        What::Backends => backends(&shown, &maps)?,
        What::Nodeports => node_ports(&shown, &maps)?,
    }
    .print()?;
    Ok(())
}

struct Shown<'a> {
    image: Image,
    names: Names,
    args: &'a Args,
}

impl Shown<'_> {
    /// The services in question with their names, or what stands for them where there are none.
    fn services(&self) -> Vec<(u32, Name)> {
        let mut all: Vec<_> = self
            .image
            .services
            .keys()
            .map(|id| (*id, self.names.get(*id)))
            .filter(|(_, name)| self.args.all_namespaces || name.namespace == self.args.namespace)
            .collect();
        all.sort_unstable_by(|a, b| a.1.cmp(&b.1).then(a.0.cmp(&b.0)));
        all
    }

    /// The frontends of a service, in order.
    fn frontends(&self, id: u32) -> BTreeMap<FrontendAt, FrontendKind> {
        let all = self.image.frontends.iter();
        all.filter(|(_, to)| to.service() == id && to.kind() != FrontendKind::Refuse)
            .map(|(at, to)| (*at, to.kind()))
            .collect()
    }

    fn backends(&self, id: u32, flag: u16) -> usize {
        let all = self.image.backends.values();
        all.filter(|entry| entry.service == id && entry.flags & flag != 0)
            .count()
    }

    fn table(&self, columns: &[&str]) -> Table {
        let namespace = self.args.all_namespaces.then_some("NAMESPACE");
        let header: Vec<&str> = namespace
            .into_iter()
            .chain(columns.iter().copied())
            .collect();
        Table::new(&header)
    }

    fn row(&self, table: &mut Table, namespace: &str, cells: Vec<String>) {
        let namespace = self.args.all_namespaces.then(|| namespace.to_owned());
        table.row(namespace.into_iter().chain(cells).collect());
    }
}

/// One line per Service object, as `kubectl get services` has it.
fn services(shown: &Shown<'_>, maps: &Maps) -> Result<Table> {
    let mut objects: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
    for (id, name) in shown.services() {
        objects
            .entry((name.namespace, name.service))
            .or_default()
            .push(id);
    }
    let mut table = shown.table(&[
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORT(S)",
        "ENDPOINTS",
        "CONNECTIONS",
    ]);
    for ((namespace, name), ids) in objects {
        let frontends: Vec<_> = ids.iter().flat_map(|id| shown.frontends(*id)).collect();
        let endpoints: usize = ids
            .iter()
            .map(|id| shown.backends(*id, backend_flags::IN_SHORT_CIRCUIT))
            .sum();
        let mut connections = 0;
        for id in &ids {
            connections += maps.service_count(*id)?.connections;
        }
        let cells = vec![
            name,
            kind(&frontends).to_owned(),
            addresses(&frontends, &[FrontendKind::ClusterIp]),
            addresses(
                &frontends,
                &[FrontendKind::LoadBalancer, FrontendKind::ExternalIp],
            ),
            ports(&frontends),
            endpoints.to_string(),
            connections.to_string(),
        ];
        shown.row(&mut table, &namespace, cells);
    }
    Ok(table)
}

fn kind(frontends: &[(FrontendAt, FrontendKind)]) -> &'static str {
    let has = |kind| frontends.iter().any(|(_, found)| *found == kind);
    if has(FrontendKind::LoadBalancer) {
        "LoadBalancer"
    } else if has(FrontendKind::NodePort) {
        "NodePort"
    } else {
        "ClusterIP"
    }
}

fn addresses(frontends: &[(FrontendAt, FrontendKind)], kinds: &[FrontendKind]) -> String {
    let all: BTreeSet<_> = frontends
        .iter()
        .filter(|(_, kind)| kinds.contains(kind))
        .filter_map(|(at, _)| match at {
            FrontendAt::Port { addr, .. } => Some(*addr),
            _ => None,
        })
        .collect();
    if all.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(",")
}

/// `80/TCP`, for NodePorts without a ClusterIP `:30000/TCP`.
fn ports(frontends: &[(FrontendAt, FrontendKind)]) -> String {
    let mut all = BTreeSet::new();
    for (at, _) in frontends {
        match at {
            FrontendAt::Port { port, protocol, .. } => {
                all.insert(format!("{port}/{protocol}"));
            }
            FrontendAt::NodePort { port, protocol, .. } => {
                all.insert(format!(":{port}/{protocol}"));
            }
            FrontendAt::WholeAddress(_) => {}
        }
    }
    let all: Vec<String> = all.into_iter().collect();
    all.join(",")
}

fn backends(shown: &Shown<'_>, maps: &Maps) -> Result<Table> {
    let mut table = shown.table(&[
        "SERVICE",
        "PORT",
        "ENDPOINT",
        "STATE",
        "WHERE",
        "CONNECTIONS",
        "PACKETS",
        "BYTES",
        "REPLY-PACKETS",
        "REPLY-BYTES",
    ]);
    for (service, name) in shown.services() {
        let all = shown.image.backends.iter();
        let mut own: Vec<_> = all
            .filter(|(_, entry)| entry.service == service && entry.flags != 0)
            .collect();
        own.sort_unstable_by_key(|(_, entry)| entry.socket);
        for (id, entry) in own {
            let has = |flag| entry.flags & flag != 0;
            let chosen = backend_flags::IN_INTERNAL
                | backend_flags::IN_EXTERNAL
                | backend_flags::IN_SHORT_CIRCUIT;
            let count = maps.backend_count(*id)?;
            let cells = vec![
                name.service.clone(),
                name.port.clone(),
                entry.socket.to_string(),
                if has(chosen) { "in-use" } else { "draining" }.to_owned(),
                if has(backend_flags::HOST) {
                    "this-node"
                } else if has(backend_flags::LOCAL) {
                    "local"
                } else {
                    "remote"
                }
                .to_owned(),
                count.connections.to_string(),
                count.packets.to_string(),
                count.bytes.to_string(),
                count.reply_packets.to_string(),
                count.reply_bytes.to_string(),
            ];
            shown.row(&mut table, &name.namespace, cells);
        }
    }
    Ok(table)
}

fn node_ports(shown: &Shown<'_>, maps: &Maps) -> Result<Table> {
    let mut table = shown.table(&[
        "NODEPORT",
        "FAMILY",
        "SERVICE",
        "PORT",
        "ENDPOINTS",
        "CONNECTIONS",
    ]);
    for (service, name) in shown.services() {
        for at in shown.frontends(service).into_keys() {
            let FrontendAt::NodePort {
                family,
                port,
                protocol,
            } = at
            else {
                continue;
            };
            let cells = vec![
                format!("{port}/{protocol}"),
                family.to_string(),
                name.service.clone(),
                name.port.clone(),
                shown
                    .backends(service, backend_flags::IN_EXTERNAL)
                    .to_string(),
                maps.service_count(service)?.connections.to_string(),
            ];
            shown.row(&mut table, &name.namespace, cells);
        }
    }
    Ok(table)
}
