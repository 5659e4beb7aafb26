//! What a datapath holds, without the numbers that another agent would choose otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use proxy_agent::model::Cidr;
use proxy_agent::plan::{FrontendAt, Image};
use proxy_agent::state::{Name, Names, Place};
use proxy_common::abi::{BackendFlags, Extent, FrontendKind, Service, ServiceFlags, ServiceId};
use testbed::topology::Node;

/// How many differences are shown.
const SHOWN: usize = 6;

#[derive(Debug)]
pub struct State {
    ports: BTreeSet<ServicePort>,
    /// Addresses that answer on no other port.
    whole_addresses: BTreeSet<IpAddr>,
    gate: Vec<u64>,
}

/// One service port in one family.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct ServicePort {
    name: Name,
    frontends: BTreeMap<FrontendAt, u32>,
    flags: ServiceFlags,
    affinity: u32,
    internal: Vec<SocketAddr>,
    external: Vec<SocketAddr>,
    short_circuit: Vec<SocketAddr>,
    backends: BTreeMap<SocketAddr, BackendFlags>,
    ranges: BTreeSet<Cidr>,
}

impl State {
    pub fn of(node: &Node) -> Result<Self> {
        let place = Place {
            bpffs: node.bpffs.clone(),
            state_dir: node.state.clone(),
        };
        let names = Names::read(&place.names())?;
        let image = place.pins().open_maps()?.image()?;
        let mut by_id = BTreeMap::new();
        for (id, service) in &image.services {
            by_id.insert(*id, service_port(&image, &names, *id, service)?);
        }
        for (at, to) in &image.frontends {
            if to.kind() != FrontendKind::Refuse
                && let Some(port) = by_id.get_mut(&to.service())
            {
                port.frontends.insert(*at, to.kind() as u32);
            }
        }
        for entry in image
            .backends
            .values()
            .filter(|entry| !entry.flags.is_empty())
        {
            if let Some(port) = by_id.get_mut(&entry.service) {
                // On which node an address is, differs between the two nodes.
                let flags = entry.flags - BackendFlags::HOST;
                port.backends.insert(entry.socket, flags);
            }
        }
        for (id, range) in &image.ranges {
            if let Some(port) = by_id.get_mut(id) {
                port.ranges.insert(*range);
            }
        }
        let mut ports = BTreeSet::new();
        for (id, port) in by_id {
            // Two that are alike would be one too many.
            if let Some(twin) = ports.replace(port) {
                bail!("service {id} is there twice: {twin:?}");
            }
        }
        let whole = |at: &FrontendAt| match at {
            FrontendAt::WholeAddress(addr) => Some(*addr),
            _ => None,
        };
        Ok(Self {
            ports,
            whole_addresses: image.frontends.keys().filter_map(whole).collect(),
            gate: image.gate,
        })
    }

    /// Demands that this is the same as `fresh`.
    pub fn is(&self, fresh: &Self) -> Result<()> {
        let mut wrong = Vec::new();
        for (what, here, there) in [
            ("is not in the fresh one", self, fresh),
            ("is only in the fresh one", fresh, self),
        ] {
            let ports = here.ports.difference(&there.ports);
            wrong.extend(ports.map(|port| format!("{what}: {port:?}")));
            let addresses = here.whole_addresses.difference(&there.whole_addresses);
            wrong.extend(addresses.map(|addr| format!("{what}: refusal by {addr}")));
        }
        // Bits are only ever added; a missing one keeps packets out.
        let open = self.gate.iter().zip(&fresh.gate);
        let closed = open.filter(|(here, there)| **there & !**here != 0).count();
        if closed > 0 {
            wrong.push(format!("{closed} words of the gate lack bits"));
        }
        let (ports, count) = (fresh.ports.len(), wrong.len());
        wrong.truncate(SHOWN);
        ensure!(ports > 0, "the fresh agent has nothing");
        ensure!(
            count == 0,
            "{count} differences in {ports} service ports:\n{}",
            wrong.join("\n")
        );
        Ok(())
    }
}

/// What the service's own value says, and nothing yet of what refers to it.
fn service_port(
    image: &Image,
    names: &Names,
    id: ServiceId,
    service: &Service,
) -> Result<ServicePort> {
    let sockets = |extent: Extent| -> Result<Vec<SocketAddr>> {
        extent
            .slots()
            .map(|slot| {
                let backend = image.slots.get(&slot).and_then(|id| image.backends.get(id));
                match backend {
                    Some(backend) if !backend.flags.is_empty() => Ok(backend.socket),
                    other => bail!("service {id}, slot {slot}: {other:?}"),
                }
            })
            .collect()
    };
    Ok(ServicePort {
        name: names.get(id),
        frontends: BTreeMap::new(),
        flags: service.flags,
        affinity: service.affinity,
        internal: sockets(service.internal)?,
        external: sockets(service.external)?,
        short_circuit: sockets(service.short_circuit)?,
        backends: BTreeMap::new(),
        ranges: BTreeSet::new(),
    })
}
