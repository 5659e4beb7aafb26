//! BGPPeer and BFDProfile: routers that are told of addresses, and how soon their absence is noticed.

use k8s_openapi::{
    api::core::v1::SecretReference, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NoStatus;

/// A router.
#[derive(CustomResource, Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    doc = "A router.",
    plural = "bgppeers",
    namespaced,
    status = "NoStatus",
    printcolumn = r#"{"name": "Address", "type": "string", "jsonPath": ".spec.peerAddress"}"#,
    printcolumn = r#"{"name": "ASN", "type": "string", "jsonPath": ".spec.peerASN"}"#,
    printcolumn = r#"{"name": "BFD Profile", "type": "string", "jsonPath": ".spec.bfdProfile"}"#,
    printcolumn = r#"{"name": "Multi Hops", "type": "string", "jsonPath": ".spec.ebgpMultiHop"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// The AS number of this end.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 0, max = 4294967295_u32))]
    pub my_asn: u32,
    /// The AS number of the router; this, or `dynamicASN`.
    #[serde(default, rename = "peerASN")]
    #[schemars(range(min = 0, max = 4294967295_u32))]
    pub peer_asn: u32,
    /// The AS number that this router is told in place of `myASN`.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295_u32))]
    pub local_asn: Option<u32>,
    /// The router's AS number is `internal` (the same as this end's) or `external` (another one).
    #[serde(
        default,
        rename = "dynamicASN",
        skip_serializing_if = "Option::is_none"
    )]
    pub dynamic_asn: Option<DynamicAsn>,
    /// The address of the router; this, or `interface`.
    #[serde(default)]
    pub peer_address: String,
    /// The interface that the router is behind, for a session without addresses.
    #[serde(default)]
    pub interface: String,
    /// The address of this end.
    #[serde(default)]
    pub source_address: String,
    /// The router's port.
    #[serde(default = "bgp_port")]
    #[schemars(range(min = 1, max = 16384))]
    pub peer_port: u16,
    /// How long a silent router is believed to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// From one sign of life to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// From one attempt to connect to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<String>,
    /// The router ID of this end.
    #[serde(default, rename = "routerID")]
    pub router_id: String,
    /// The nodes that have the session; without any, all.
    #[serde(default)]
    pub node_selectors: Vec<LabelSelector>,
    /// The password of the session (TCP MD5).
    #[serde(default)]
    pub password: String,
    /// A Secret of type kubernetes.io/basic-auth with the password.
    #[serde(default)]
    pub password_secret: SecretReference,
    /// The BFDProfile of the session; without one, there is no BFD.
    #[serde(default)]
    pub bfd_profile: String,
    /// The router goes on forwarding while this end restarts.
    #[serde(default)]
    pub enable_graceful_restart: bool,
    /// The router is more than one hop away.
    #[serde(default)]
    pub ebgp_multi_hop: bool,
    /// The VRF that the router is reached by.
    #[serde(default)]
    pub vrf: String,
    /// A session for each family.
    #[serde(default, rename = "disableMP")]
    pub disable_mp: bool,
    /// Routes of both families over one session.
    #[serde(default)]
    pub dual_stack_address_family: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    Internal,
    External,
}

const fn bgp_port() -> u16 {
    179
}

/// How a session's router is watched by BFD.
#[derive(CustomResource, Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BFDProfile",
    doc = "How a session's router is watched by BFD.",
    plural = "bfdprofiles",
    namespaced,
    status = "NoStatus",
    printcolumn = r#"{"name": "Passive Mode", "type": "boolean", "jsonPath": ".spec.passiveMode"}"#,
    printcolumn = r#"{"name": "Transmit Interval", "type": "integer", "jsonPath": ".spec.transmitInterval"}"#,
    printcolumn = r#"{"name": "Receive Interval", "type": "integer", "jsonPath": ".spec.receiveInterval"}"#,
    printcolumn = r#"{"name": "Multiplier", "type": "integer", "jsonPath": ".spec.detectMultiplier"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct BFDProfileSpec {
    /// Milliseconds between two packets that this end can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub receive_interval: Option<u32>,
    /// Milliseconds between two packets that this end sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub transmit_interval: Option<u32>,
    /// Packets that may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<u32>,
    /// Milliseconds between two echo packets that this end can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub echo_interval: Option<u32>,
    /// Send echo packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo_mode: Option<bool>,
    /// Let the router begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive_mode: Option<bool>,
    /// The lowest TTL of a packet of a session over several hops.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u32>,
}
