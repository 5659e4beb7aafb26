//! Community: names for BGP communities.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NoStatus;

/// Names for BGP communities, which BGPAdvertisements use.
#[derive(CustomResource, Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "Community",
    doc = "Names for BGP communities, which BGPAdvertisements use.",
    plural = "communities",
    namespaced,
    status = "NoStatus"
)]
#[serde(default)]
pub struct CommunitySpec {
    pub communities: Vec<CommunityAlias>,
}

#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommunityAlias {
    /// The name.
    pub name: String,
    /// `1234:1234` or `large:1:2:3`.
    pub value: String,
}
