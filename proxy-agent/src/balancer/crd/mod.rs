//! MetalLB's custom resources, as types of our own.
//!
//! In: the objects as an API server or a manifest has them. Out: values that can be read, and the definitions of the kinds
//! (`deploy/crds/metallb.io.yaml`), for clusters that MetalLB never was in.
//!
//! The one rule: a field that MetalLB has is here, so that no object loses one on its way through. Which of them have a
//! meaning here, [`support`] says, one by one.
//!
//! | file | subject |
//! |---|---|
//! | `pool` | IPAddressPool |
//! | `advertisement` | L2Advertisement, BGPAdvertisement |
//! | `peer` | BGPPeer, BFDProfile |
//! | `community` | Community |
//! | `support` | which fields have a meaning here |

mod advertisement;
mod community;
mod peer;
mod pool;
pub mod support;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    advertisement::{
        BGPAdvertisement, BGPAdvertisementSpec, L2Advertisement, L2AdvertisementSpec,
        PreferredNodeSelector,
    },
    community::{Community, CommunityAlias, CommunitySpec},
    peer::{BFDProfile, BFDProfileSpec, BGPPeer, BGPPeerSpec, DynamicAsn},
    pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ServiceAllocation},
};

pub const GROUP: &str = "metallb.io";

/// Of kinds that have nothing to say of themselves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoStatus {}

/// The definitions of all kinds.
pub fn definitions() -> [CustomResourceDefinition; 6] {
    [
        IPAddressPool::crd(),
        L2Advertisement::crd(),
        BGPAdvertisement::crd(),
        Community::crd(),
        BGPPeer::crd(),
        BFDProfile::crd(),
    ]
}

/// The definitions as `kubectl apply` takes them.
pub fn manifest() -> String {
    let mut text = "# Written by `PORTSIDE_GOLDEN=write cargo xtask test --level l0 custom_resources` from proxy-agent/src/balancer/crd:\n\
                    # change that, not this. Where MetalLB is, its own definitions stay: these are for clusters without.\n"
        .to_owned();
    for definition in definitions() {
        text += "---\n";
        text += &serde_saphyr::to_string(&definition).expect("a definition is plain data");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn custom_resources_in_deploy_are_those_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds/metallb.io.yaml");
        if env::var_os("PORTSIDE_GOLDEN").is_some_and(|value| value == "write") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, manifest()).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == manifest(), "{}: write it anew", path.display());
    }

    #[test]
    fn a_pool_is_read_with_the_defaults_of_its_definition() {
        let pool: IPAddressPoolSpec =
            serde_json::from_value(serde_json::json!({"addresses": ["192.0.2.0/24"]})).unwrap();
        assert!(pool.auto_assign && !pool.avoid_buggy_ips && pool.service_allocation.is_none());
    }
}
