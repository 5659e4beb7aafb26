//! The contents of the maps, as plain values.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::abi::{BackendId, FrontendRef, Service, ServiceId, Slot};

use super::{BackendEntry, FrontendAt};
use crate::model::Cidr;

/// The contents of the maps that a plan writes, as a planner finds them when it starts. The default is empty maps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Image {
    /// Words of the gate; missing ones are zero.
    pub gate: Vec<u64>,
    pub services: BTreeMap<ServiceId, Service>,
    /// Those that a service refers to.
    pub slots: HashMap<Slot, BackendId>,
    /// Those in use, and those that were: their generation counts on.
    pub backends: BTreeMap<BackendId, BackendEntry>,
    pub frontends: HashMap<FrontendAt, FrontendRef>,
    /// Service and range.
    pub ranges: BTreeSet<(ServiceId, Cidr)>,
}
