//! Does anybody know this node by its name?
//!
//! A name that no Node and no endpoint has makes every endpoint a remote one: Local policies find none here and drop. That is
//! a mistake of the command line nearly always, and nothing else would tell.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::EndpointSlice;

/// Names of nodes as objects have them.
#[derive(Default, Debug)]
pub struct Names {
    is_known: bool,
    others: BTreeSet<Arc<str>>,
    is_told: bool,
}

/// So many others are named.
const SHOWN: usize = 3;

/// Nobody knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stranger {
    pub name: String,
    /// Nodes that endpoints are on.
    pub others: Vec<Arc<str>>,
}

impl Names {
    /// A Node of the name is there.
    pub fn has_node(&mut self) {
        self.is_known = true;
    }

    pub fn has_slice(&mut self, slice: &EndpointSlice, own_name: &str) {
        if self.is_known {
            return;
        }
        for node in slice.endpoints.iter().filter_map(|one| one.node.as_ref()) {
            if **node == *own_name {
                self.is_known = true;
                return;
            }
            if self.others.len() < SHOWN {
                self.others.insert(Arc::clone(node));
            }
        }
    }

    /// Says it once, when endpoints name nodes and none of them is this one.
    pub fn take_stranger(&mut self, own_name: &str) -> Option<Stranger> {
        if self.is_known || self.is_told || self.others.is_empty() {
            return None;
        }
        self.is_told = true;
        Some(Stranger {
            name: own_name.to_owned(),
            others: self.others.iter().cloned().collect(),
        })
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no Node and no endpoint has the name {:?} (--node-name): every endpoint counts as one of another node, and \
             Local policies find none here. Endpoints are on {}",
            self.name,
            self.others.join(", ")
        )
    }
}
