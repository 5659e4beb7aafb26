//! IPAddressPool: the addresses that may be given, and to whom.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pool of addresses that Services of type LoadBalancer are given.
#[derive(CustomResource, Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    doc = "A pool of addresses that Services of type LoadBalancer are given.",
    plural = "ipaddresspools",
    namespaced,
    status = "IPAddressPoolStatus",
    printcolumn = r#"{"name": "Auto Assign", "type": "boolean", "jsonPath": ".spec.autoAssign"}"#,
    printcolumn = r#"{"name": "Avoid Buggy IPs", "type": "boolean", "jsonPath": ".spec.avoidBuggyIPs"}"#,
    printcolumn = r#"{"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Ranges, each as a prefix (192.0.2.0/24) or as its first and last address (192.0.2.10-192.0.2.20), of either family.
    pub addresses: Vec<String>,
    /// Whether a Service gets an address of it without asking for the pool or the address.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Leave out IPv4 addresses that end in .0 or .255, which some old devices drop.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Which Services may have an address of it. Such a pool comes before those for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

/// For whom a pool is.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAllocation {
    /// Of several pools for a Service, the one with the lowest number comes first; those with 0 come last.
    pub priority: i64,
    /// The namespaces whose Services may have an address.
    pub namespaces: Vec<String>,
    /// The same by labels of the namespace: any of these, or any of `namespaces`.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Labels of the Services that may have an address: any of these.
    pub service_selectors: Vec<LabelSelector>,
}

/// How much of the pool is given.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IPAddressPoolStatus {
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
}

const fn yes() -> bool {
    true
}
