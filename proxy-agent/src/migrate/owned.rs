//! The names of what kube-proxy makes.
//!
//! From kube-proxy's own clean-up (`pkg/proxy/iptables/cleanup.go`, `pkg/proxy/ipvs/proxier.go`,
//! `pkg/proxy/nftables/proxier.go`). Not here, as they are the kubelet's: `KUBE-FIREWALL`, `KUBE-MARK-DROP`,
//! `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`. Nor what CNIs name alike: `KUBE-ROUTER-…`, `KUBE-NWPLCY-…`,
//! `KUBE-POD-FW-…`, `KUBE-HOSTPORTS`, `KUBE-HP-…`.

/// The nftables table of the nftables mode, one in each of the families `ip` and `ip6`.
pub const NFT_TABLE: &str = "kube-proxy";

/// The dummy device of the ipvs mode, which carries the services' addresses.
pub const IPVS_DEVICE: &str = "kube-ipvs0";

/// Marks what is to be masqueraded, which happens in the second: whoever uses the first needs both.
pub const MARKING: &str = "KUBE-MARK-MASQ";
pub const MASQUERADING: &str = "KUBE-POSTROUTING";

const CHAINS: [&str; 19] = [
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-LOAD-BALANCER",
    MARKING,
    "KUBE-NODE-PORT",
    "KUBE-NODEPORTS",
    MASQUERADING,
    "KUBE-PROXY-CANARY",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SERVICES",
    "KUBE-SOURCE-RANGES-FIREWALL",
    // The ipvs mode before 1.26.
    "KUBE-FIRE-WALL",
    // The userspace mode, gone since 1.26.
    "KUBE-NODEPORT-CONTAINER",
    "KUBE-NODEPORT-HOST",
    "KUBE-NODEPORT-NON-LOCAL",
    "KUBE-PORTALS-CONTAINER",
    "KUBE-PORTALS-HOST",
];

/// Chains per service and per endpoint; a hash follows.
const CHAIN_PREFIXES: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-EXT-",
    "KUBE-XLB-",
    "KUBE-SEP-",
    "KUBE-FW-",
];

/// Sets of the ipvs mode. Those of IPv6 have `KUBE-6-` where these have `KUBE-`.
const SETS: [&str; 17] = [
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
    "LOAD-BALANCER",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-SOURCE-CIDR",
    "LOAD-BALANCER-SOURCE-IP",
    "LOOP-BACK",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
];

pub fn is_chain(name: &str) -> bool {
    CHAINS.contains(&name) || CHAIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

pub fn is_set(name: &str) -> bool {
    let name = name
        .strip_prefix("KUBE-6-")
        .or_else(|| name.strip_prefix("KUBE-"));
    name.is_some_and(|name| SETS.contains(&name))
}
