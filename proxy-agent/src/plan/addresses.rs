//! Counts which addresses are ClusterIPs, and which of those are refused on every port that no service has.
//!
//! A ClusterIP is, unless it is an address of this node too, or an external address of some service: there other ports are the
//! business of whoever owns the address.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    net::IpAddr,
};

use proxy_common::abi::FrontendKind;

use super::FrontendAt;
use crate::model::Cidr;

/// The addresses of the node that this agent runs on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeAddresses {
    /// All of them.
    pub local: BTreeSet<IpAddr>,
    /// Those by which other nodes know it.
    pub primary: BTreeSet<IpAddr>,
}

impl NodeAddresses {
    /// Is one of the node's main addresses in one of `ranges`?
    pub fn primary_in(&self, ranges: &[Cidr]) -> bool {
        self.primary
            .iter()
            .any(|addr| ranges.iter().any(|range| range.contains(*addr)))
    }
}

#[derive(Debug)]
pub struct Addresses {
    pub node: NodeAddresses,
    /// How many frontends each has.
    cluster: HashMap<IpAddr, u32>,
    external: HashMap<IpAddr, u32>,
    touched: BTreeSet<IpAddr>,
}

impl Addresses {
    pub fn new(node: NodeAddresses) -> Self {
        Self {
            node,
            cluster: HashMap::new(),
            external: HashMap::new(),
            touched: BTreeSet::new(),
        }
    }

    pub fn add(&mut self, at: FrontendAt, kind: FrontendKind) {
        self.count(at, kind, |count| count + 1);
    }

    pub fn remove(&mut self, at: FrontendAt, kind: FrontendKind) {
        self.count(at, kind, |count| count.saturating_sub(1));
    }

    /// Takes over the node's addresses.
    pub fn set_node(&mut self, node: NodeAddresses) {
        let old = mem::replace(&mut self.node, node);
        self.touched
            .extend(old.local.symmetric_difference(&self.node.local));
    }

    /// Marks an address as one to look at again.
    pub fn touch(&mut self, addr: IpAddr) {
        self.touched.insert(addr);
    }

    /// How many addresses there are of which the answer may have changed: at most so many entries are to be written.
    pub fn touched(&self) -> u32 {
        self.touched.len() as u32
    }

    /// The addresses of which the answer may have changed since the last call: each with whether it is to be refused.
    pub fn take_touched(&mut self) -> Vec<(IpAddr, bool)> {
        mem::take(&mut self.touched)
            .into_iter()
            .map(|addr| (addr, self.is_refused(addr)))
            .collect()
    }

    fn is_refused(&self, addr: IpAddr) -> bool {
        self.cluster.contains_key(&addr)
            && !self.external.contains_key(&addr)
            && !self.node.local.contains(&addr)
    }

    fn count(&mut self, at: FrontendAt, kind: FrontendKind, change: impl FnOnce(u32) -> u32) {
        let FrontendAt::Port { addr, .. } = at else {
            return;
        };
        let was_refused = self.is_refused(addr);
        let counts = match kind {
            FrontendKind::ClusterIp => &mut self.cluster,
            FrontendKind::ExternalIp | FrontendKind::LoadBalancer => &mut self.external,
            FrontendKind::NodePort | FrontendKind::Refuse => return,
        };
        let count = change(counts.get(&addr).copied().unwrap_or(0));
        if count > 0 {
            counts.insert(addr, count);
        } else {
            counts.remove(&addr);
        }
        if self.is_refused(addr) != was_refused {
            self.touched.insert(addr);
        }
    }
}
