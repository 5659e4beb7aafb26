//! What is served, what is refused, and what of it the maps lack.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use proxy_common::abi::{BackendFlags, ServiceId};
use serde::Serialize;

use super::View;
use crate::{
    notices::Notice,
    serve::{Unserved, summary},
    state::{self, Names, Place},
};

/// So many are named in a line.
const NAMED: usize = 3;

/// Sums over all Services.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    pub services: usize,
    /// In each family for themselves.
    pub service_ports: usize,
    pub endpoints: usize,
    /// New connections to these are refused.
    pub without_endpoints: Vec<String>,
    /// Why Services are not served as their objects say.
    pub notices: BTreeMap<String, Vec<Notice>>,
    pub left_out: Vec<Unserved>,
    /// What the agent has programmed by its own word, and what the kernel has: where they differ.
    pub differences: Vec<String>,
}

pub fn services(place: &Place, view: &View) -> Result<Services> {
    let mut all: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for service in &view.services {
        let name = format!("{}/{}", service.name.namespace, service.name.service);
        all.entry(name).or_default().push(service);
    }
    let mut sums = Services {
        service_ports: view.services.len(),
        services: all.len(),
        left_out: state::read(&place.left_out())?,
        differences: differences(&Names::read(&place.names())?, view),
        ..Services::default()
    };
    for (name, ports) in all {
        let endpoints = super::endpoints(ports.iter().copied(), BackendFlags::CHOSEN);
        sums.endpoints += endpoints;
        if endpoints == 0 {
            sums.without_endpoints.push(name);
        }
    }
    for one in &view.told {
        if !one.notices.is_empty() {
            let name = format!("{}/{}", one.namespace, one.name);
            sums.notices.insert(name, one.notices.clone());
        }
    }
    Ok(sums)
}

/// The names are of what the agent has programmed.
fn differences(names: &Names, view: &View) -> Vec<String> {
    let programmed: BTreeSet<_> = view.services.iter().map(|service| service.id).collect();
    let wanted: BTreeSet<_> = names.0.keys().copied().map(ServiceId).collect();
    let lacking: Vec<_> = wanted
        .difference(&programmed)
        .map(|id| names.text(*id))
        .collect();
    let strange: Vec<_> = programmed
        .difference(&wanted)
        .map(|id| format!("#{id}"))
        .collect();
    let mut all = Vec::new();
    if wanted.is_empty() && !programmed.is_empty() {
        all.push(format!(
            "no agent has left the names of the {} service ports that are programmed",
            programmed.len()
        ));
        return all;
    }
    if !lacking.is_empty() {
        all.push(format!(
            "{} service ports are wanted and not in the maps: {}",
            lacking.len(),
            some(&lacking)
        ));
    }
    if !strange.is_empty() {
        all.push(format!(
            "{} service ports are in the maps and not wanted: {}",
            strange.len(),
            some(&strange)
        ));
    }
    all
}

impl Services {
    pub fn problems(&self) -> Vec<String> {
        let room = summary(&self.left_out);
        self.differences.iter().cloned().chain(room).collect()
    }

    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self
            .notices
            .iter()
            .flat_map(|(name, notices)| {
                let line = |notice: &Notice| {
                    format!("{name}: {}: {}", notice.reason.text(), notice.message)
                };
                notices.iter().map(line).collect::<Vec<_>>()
            })
            .collect();
        let more = notes.len().saturating_sub(NAMED);
        notes.truncate(NAMED);
        if more > 0 {
            notes.push(format!(
                "{more} more notices: proxy-agent get services -A -o wide"
            ));
        }
        if !self.without_endpoints.is_empty() {
            notes.push(format!(
                "{} Services have no endpoint: {}",
                self.without_endpoints.len(),
                some(&self.without_endpoints)
            ));
        }
        notes
    }
}

fn some(names: &[String]) -> String {
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names[..names.len().min(NAMED)].join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_some_and_counts_the_rest() {
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(some(&names), "a, b, c and 2 more");
        assert_eq!(some(&names[..3]), "a, b, c");
        assert_eq!(some(&[]), "");
    }
}
