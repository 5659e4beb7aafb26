//! What the controller asks an API server for. The roles in `deploy/` grant exactly this; tests compare the two.

use crate::source::access::Access;

/// In every namespace.
pub const EVERYWHERE: [Access; 5] = [
    // A Service is read again before it is changed for the sake of its version.
    Access {
        group: "",
        resource: "services",
        verbs: &["get", "list", "watch"],
    },
    Access {
        group: "",
        resource: "services/status",
        verbs: &["patch"],
    },
    // Their labels: pools select by them.
    Access {
        group: "",
        resource: "namespaces",
        verbs: &["list", "watch"],
    },
    // MetalLB's controller, which is stood back for.
    Access {
        group: "apps",
        resource: "deployments",
        verbs: &["list", "watch"],
    },
    // `--events=false` does without.
    Access {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create", "patch"],
    },
];

/// In the namespace of the pools.
pub const OF_POOLS: [Access; 2] = [
    Access {
        group: "metallb.io",
        resource: "ipaddresspools",
        verbs: &["list", "watch"],
    },
    Access {
        group: "metallb.io",
        resource: "ipaddresspools/status",
        verbs: &["patch"],
    },
];

/// In the namespace of the Lease.
pub const OF_LEASE: [Access; 1] = [Access {
    group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["get", "create", "update"],
}];
