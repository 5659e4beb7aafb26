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
        if let Some((counts, addr)) = self.counts(at, kind) {
            *counts.entry(addr).or_default() += 1;
            self.touched.insert(addr);
        }
    }

    pub fn remove(&mut self, at: FrontendAt, kind: FrontendKind) {
        if let Some((counts, addr)) = self.counts(at, kind) {
            if let Some(count) = counts.get_mut(&addr) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&addr);
                }
            }
            self.touched.insert(addr);
        }
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
            .map(|addr| {
                let refused = self.cluster.contains_key(&addr)
                    && !self.external.contains_key(&addr)
                    && !self.node.local.contains(&addr);
                (addr, refused)
            })
            .collect()
    }

    fn counts(
        &mut self,
        at: FrontendAt,
        kind: FrontendKind,
    ) -> Option<(&mut HashMap<IpAddr, u32>, IpAddr)> {
        let FrontendAt::Port { addr, .. } = at else {
            return None;
        };
        match kind {
            FrontendKind::ClusterIp => Some((&mut self.cluster, addr)),
            FrontendKind::ExternalIp | FrontendKind::LoadBalancer => {
                Some((&mut self.external, addr))
            }
            FrontendKind::NodePort | FrontendKind::Refuse => None,
        }
    }
}
