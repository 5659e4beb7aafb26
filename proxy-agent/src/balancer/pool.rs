//! Pools, as the allocator knows them.

use std::{collections::BTreeMap, collections::BTreeSet, net::IpAddr, sync::Arc};

use kube::core::{Selector, SelectorExt as _};

use super::{
    crd::IPAddressPoolSpec,
    demand::Demand,
    range::{Range, ends_badly},
};
use crate::{
    model::{Family, ObjectName},
    source::convert::FieldError,
};

/// Addresses, and who may have them.
#[derive(Clone, PartialEq, Debug)]
pub struct Pool {
    pub ranges: Vec<Range>,
    pub auto_assign: bool,
    pub avoids_buggy: bool,
    /// `None` where the pool is for everybody.
    pub scope: Option<Scope>,
}

/// For whom a pool is.
#[derive(Clone, PartialEq, Debug)]
pub struct Scope {
    /// As in the object: 0 comes last.
    pub priority: i64,
    /// `None` for all; else those named, and those with fitting labels.
    pub namespaces: Option<BTreeSet<Arc<str>>>,
    /// Empty for all.
    pub services: Vec<Selector>,
}

/// The labels of the namespaces.
pub type Namespaces = BTreeMap<Arc<str>, BTreeMap<String, String>>;

impl Pool {
    pub fn of(spec: &IPAddressPoolSpec, namespaces: &Namespaces) -> Result<Self, FieldError> {
        let IPAddressPoolSpec {
            addresses,
            auto_assign,
            avoid_buggy_ips,
            service_allocation,
        } = spec;
        if addresses.is_empty() {
            return Err(FieldError {
                field: "spec.addresses".to_owned(),
                message: "has no ranges".to_owned(),
            });
        }
        let mut ranges: Vec<Range> = Vec::new();
        for (i, text) in addresses.iter().enumerate() {
            let error = |message| FieldError {
                field: format!("spec.addresses[{i}]"),
                message,
            };
            let range = Range::parse(text).map_err(error)?;
            if let Some(other) = ranges.iter().find(|other| other.overlaps(range)) {
                return Err(error(format!("{range} overlaps {other} of the same pool")));
            }
            ranges.push(range);
        }
        let scope = service_allocation.as_ref().map(|to| {
            let field = "spec.serviceAllocation";
            let by_labels = selectors(
                &to.namespace_selectors,
                &format!("{field}.namespaceSelectors"),
            )?;
            let named = to.namespaces.iter().map(|name| Arc::from(name.as_str()));
            let fits = |labels| by_labels.iter().any(|selector| selector.matches(labels));
            let labelled = namespaces.iter().filter(|(_, labels)| fits(*labels));
            let selected = named.chain(labelled.map(|(name, _)| Arc::clone(name)));
            let is_for_all = to.namespaces.is_empty() && by_labels.is_empty();
            Ok(Scope {
                priority: to.priority,
                namespaces: (!is_for_all).then(|| selected.collect()),
                services: selectors(&to.service_selectors, &format!("{field}.serviceSelectors"))?,
            })
        });
        Ok(Self {
            ranges,
            auto_assign: *auto_assign,
            avoids_buggy: *avoid_buggy_ips,
            scope: scope.transpose()?,
        })
    }

    /// May this address be given?
    pub fn has(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address)) && !self.avoids(address)
    }

    pub fn avoids(&self, address: IpAddr) -> bool {
        self.avoids_buggy && ends_badly(address)
    }

    /// May the Service have an address of it?
    pub fn is_for(&self, name: &ObjectName, demand: &Demand) -> bool {
        self.scope.as_ref().is_none_or(|scope| {
            let namespaces = scope.namespaces.as_ref();
            namespaces.is_none_or(|all| all.contains(&name.namespace))
                && (scope.services.is_empty()
                    || scope
                        .services
                        .iter()
                        .any(|selector| selector.matches(&demand.labels)))
        })
    }

    /// Of several pools for a Service, the one with the least comes first.
    pub fn rank(&self) -> (bool, i64) {
        let priority = self.scope.as_ref().map_or(0, |scope| scope.priority);
        (priority == 0, priority)
    }

    /// How many addresses of the family there are.
    pub fn len(&self, family: Family) -> u128 {
        let of_family = self.ranges.iter().filter(|range| range.family() == family);
        of_family.fold(0, |sum, range| {
            sum.saturating_add(range.len(self.avoids_buggy))
        })
    }
}

fn selectors(
    all: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector],
    field: &str,
) -> Result<Vec<Selector>, FieldError> {
    let one = |(i, selector): (
        usize,
        &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    )| {
        Selector::try_from(selector.clone()).map_err(|error| FieldError {
            field: format!("{field}[{i}]"),
            message: error.to_string(),
        })
    };
    all.iter().enumerate().map(one).collect()
}
