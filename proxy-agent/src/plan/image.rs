//! The contents of the maps, as plain values.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::abi::{FrontendRef, Service};

use super::{BackendEntry, FrontendAt};
use crate::model::Cidr;

/// The contents of the maps that a plan writes, as a planner finds them when it starts. The default is empty maps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Image {
    /// Words of the gate; missing ones are zero.
    pub gate: Vec<u64>,
    pub services: BTreeMap<u32, Service>,
    /// Those that a service refers to.
    pub slots: HashMap<u32, u32>,
    /// Those in use, and those that were: their generation counts on.
    pub backends: BTreeMap<u32, BackendEntry>,
    pub frontends: HashMap<FrontendAt, FrontendRef>,
    /// Service and range.
    pub ranges: BTreeSet<(u32, Cidr)>,
}
