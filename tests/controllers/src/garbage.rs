//! What is left of an owner that is gone goes, too (`pkg/controller/garbagecollector`, in the background).

use std::collections::BTreeSet;

use anyhow::Result;
use api_server::objects::Objects;
use api_server::resource::Resource;

use super::object;

const OWNERS: [Resource; 3] = [
    Resource::Deployments,
    Resource::ReplicaSets,
    Resource::Services,
];
const OWNED: [Resource; 3] = [
    Resource::ReplicaSets,
    Resource::Pods,
    Resource::EndpointSlices,
];

pub fn collect(objects: &Objects) -> Result<()> {
    let mut living = BTreeSet::new();
    for owner in OWNERS {
        living.extend(
            objects
                .list(owner)
                .iter()
                .map(|one| object::uid(one).to_owned()),
        );
    }
    for resource in OWNED {
        for one in objects.list(resource) {
            let owners = one["metadata"]["ownerReferences"].as_array();
            let is_left = owners.is_some_and(|all| {
                all.iter()
                    .all(|owner| !living.contains(owner["uid"].as_str().unwrap_or_default()))
            });
            match resource {
                _ if !is_left || object::is_deleted(&one) => {}
                Resource::Pods => objects.begin_deletion(resource, &one)?,
                _ => objects.remove(resource, &one)?,
            }
        }
    }
    Ok(())
}
