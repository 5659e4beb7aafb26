//! Dumps as nodes have them, and what is left of them.

use std::collections::BTreeSet;

use super::{iptables, nftables, owned};

/// `iptables-save` of a node with kube-proxy, a kubelet, Calico, and a CNI plug-in that uses KUBE-MARK-MASQ.
const DUMP: &str = include_str!("testdata/iptables-save");
const DUMP6: &str = include_str!("testdata/ip6tables-save");

#[test]
fn the_edit_of_a_kube_proxy_dump_is_exact() {
    let plan = iptables::plan(DUMP);
    assert_eq!(plan.restore, include_str!("testdata/iptables-restore"));
    let counts: Vec<_> = plan
        .tables
        .iter()
        .map(|table| (table.name.as_str(), table.jumps, table.chains))
        .collect();
    assert_eq!(
        counts,
        [("mangle", 0, 1), ("filter", 8, 6), ("nat", 2, 6)],
        "{plan:?}"
    );
}

#[test]
fn the_other_family_is_edited_alike() {
    let plan = iptables::plan(DUMP6);
    assert_eq!(plan.restore, include_str!("testdata/ip6tables-restore"));
}

#[test]
fn no_rule_of_others_is_in_the_edit() {
    for dump in [DUMP, DUMP6] {
        let restore = iptables::plan(dump).restore;
        for line in restore.lines() {
            for owner in [
                "KUBELET",
                "KUBE-FIREWALL",
                "cali",
                "CNI",
                "MARK-DROP",
                "DOCKER",
            ] {
                assert!(!line.contains(owner), "{line}");
            }
        }
    }
}

#[test]
fn a_chain_that_others_use_stays_with_what_it_needs() {
    let dump = "*nat\n:PREROUTING ACCEPT [0:0]\n:OTHER - [0:0]\n:KUBE-SVC-AAA - [0:0]\n:KUBE-SEP-AAA - [0:0]\n\
                :KUBE-MARK-MASQ - [0:0]\n:KUBE-SEP-BBB - [0:0]\n-A PREROUTING -j KUBE-SVC-AAA\n-A OTHER -g KUBE-SVC-AAA\n\
                -A KUBE-SVC-AAA -j KUBE-SEP-AAA\n-A KUBE-SEP-AAA -j KUBE-MARK-MASQ\n-A KUBE-SEP-BBB -j KUBE-MARK-MASQ\nCOMMIT\n";
    let plan = iptables::plan(dump);
    assert_eq!(
        plan.restore,
        "*nat\n:KUBE-SEP-BBB - [0:0]\n-D PREROUTING -j KUBE-SVC-AAA\n-X KUBE-SEP-BBB\nCOMMIT\n"
    );
    assert_eq!(
        plan.tables[0].kept,
        ["KUBE-MARK-MASQ", "KUBE-SEP-AAA", "KUBE-SVC-AAA"]
    );
}

#[test]
fn a_comment_is_no_jump() {
    let dump = "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n\
                -A INPUT -m comment --comment \"not \\\" -j KUBE-FORWARD\" -j ACCEPT\nCOMMIT\n";
    assert_eq!(
        iptables::plan(dump).restore,
        "*filter\n:KUBE-FORWARD - [0:0]\n-X KUBE-FORWARD\nCOMMIT\n"
    );
}

#[test]
fn what_is_clean_needs_no_edit() {
    assert_eq!(iptables::plan("").restore, "");
    let kubelet = "*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
    assert_eq!(iptables::plan(kubelet).restore, "");
}

#[test]
fn only_kube_proxys_own_tables_go() {
    let list =
        "table ip nat\ntable ip kube-proxy\ntable ip6 kube-proxy-extra\ntable inet kube-proxy\n";
    assert_eq!(nftables::families(list), ["ip"]);
    assert_eq!(nftables::families("table ip6 kube-proxy\n"), ["ip6"]);
    let removed: BTreeSet<_> = nftables::plan(&["ip", "ip6"])
        .lines()
        .filter(|line| line.starts_with("delete"))
        .map(str::to_owned)
        .collect();
    let expected = ["delete table ip kube-proxy", "delete table ip6 kube-proxy"];
    assert_eq!(removed, expected.map(str::to_owned).into());
}

#[test]
fn sets_are_kube_proxys_in_both_families() {
    for name in [
        "KUBE-CLUSTER-IP",
        "KUBE-6-CLUSTER-IP",
        "KUBE-NODE-PORT-SCTP-HASH",
    ] {
        assert!(owned::is_set(name), "{name}");
    }
    for name in ["KUBE-SRC-ABC", "cali40s:xyz", "CLUSTER-IP"] {
        assert!(!owned::is_set(name), "{name}");
    }
}
