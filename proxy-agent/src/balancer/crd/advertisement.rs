//! L2Advertisement and BGPAdvertisement: which addresses are announced, by whom and how.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NoStatus;

/// Announces addresses by answering ARP and NDP.
#[derive(CustomResource, Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    doc = "Announces addresses by answering ARP and NDP.",
    plural = "l2advertisements",
    namespaced,
    status = "NoStatus",
    printcolumn = r#"{"name": "IPAddressPools", "type": "string", "jsonPath": ".spec.ipAddressPools"}"#,
    printcolumn = r#"{"name": "IPAddressPool Selectors", "type": "string", "jsonPath": ".spec.ipAddressPoolSelectors"}"#,
    printcolumn = r#"{"name": "Interfaces", "type": "string", "jsonPath": ".spec.interfaces"}"#,
    printcolumn = r#"{"name": "Node Selectors", "type": "string", "jsonPath": ".spec.nodeSelectors", "priority": 10}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct L2AdvertisementSpec {
    /// Pools by their names; with neither these nor selectors, all pools.
    pub ip_address_pools: Vec<String>,
    /// Pools by their labels.
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// The nodes that may answer; without any, all.
    pub node_selectors: Vec<LabelSelector>,
    /// The interfaces that are answered at; without any, all.
    pub interfaces: Vec<String>,
    /// The Services whose addresses are announced; without any, all of the pools.
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes that should answer before others that may.
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,
}

/// A preference for nodes.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PreferredNodeSelector {
    /// Weights of all selectors that match a node add up.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes that have the weight.
    pub preference: LabelSelector,
}

/// Announces addresses to routers by BGP.
#[derive(CustomResource, Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    doc = "Announces addresses to routers by BGP.",
    plural = "bgpadvertisements",
    namespaced,
    status = "NoStatus",
    printcolumn = r#"{"name": "IPAddressPools", "type": "string", "jsonPath": ".spec.ipAddressPools"}"#,
    printcolumn = r#"{"name": "IPAddressPool Selectors", "type": "string", "jsonPath": ".spec.ipAddressPoolSelectors"}"#,
    printcolumn = r#"{"name": "Peers", "type": "string", "jsonPath": ".spec.peers"}"#,
    printcolumn = r#"{"name": "Node Selectors", "type": "string", "jsonPath": ".spec.nodeSelectors", "priority": 10}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct BGPAdvertisementSpec {
    /// The length of the prefix that an IPv4 address is announced as.
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: i32,
    /// The same of IPv6.
    #[schemars(range(min = 1, max = 128))]
    pub aggregation_length_v6: i32,
    /// LOCAL_PREF of the routes.
    pub local_pref: u32,
    /// `1234:1234`, `large:1:2:3`, or the name of an alias in a Community.
    pub communities: Vec<String>,
    /// Pools by their names; with neither these nor selectors, all pools.
    pub ip_address_pools: Vec<String>,
    /// Pools by their labels.
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// The nodes that announce; without any, all.
    pub node_selectors: Vec<LabelSelector>,
    /// BGPPeers that are told, by their names; without any, all.
    pub peers: Vec<String>,
    /// The Services whose addresses are announced; without any, all of the pools.
    pub service_selectors: Vec<LabelSelector>,
}

impl Default for BGPAdvertisementSpec {
    fn default() -> Self {
        Self {
            aggregation_length: 32,
            aggregation_length_v6: 128,
            local_pref: 0,
            communities: Vec::new(),
            ip_address_pools: Vec::new(),
            ip_address_pool_selectors: Vec::new(),
            node_selectors: Vec::new(),
            peers: Vec::new(),
            service_selectors: Vec::new(),
        }
    }
}
