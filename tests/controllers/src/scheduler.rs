//! Gives a Pod that has no node yet the one with the fewest.

use std::collections::BTreeMap;

use anyhow::Result;
use api_server::objects::Objects;
use api_server::resource::Resource;

pub fn reconcile<'a>(objects: &Objects, nodes: impl Iterator<Item = &'a str>) -> Result<()> {
    let pods = objects.list(Resource::Pods);
    let mut load: BTreeMap<_, _> = nodes.map(|node| (node.to_owned(), 0)).collect();
    let placed = pods
        .iter()
        .filter_map(|pod| pod["spec"]["nodeName"].as_str());
    for node in placed {
        *load.entry(node.to_owned()).or_insert(0) += 1;
    }
    for pod in pods.iter().filter(|pod| pod["spec"]["nodeName"].is_null()) {
        let Some((node, count)) = load.iter_mut().min_by_key(|(_, count)| **count) else {
            break;
        };
        *count += 1;
        objects.change(Resource::Pods, pod, |pod| {
            pod["spec"]["nodeName"] = node.as_str().into();
        })?;
    }
    Ok(())
}
