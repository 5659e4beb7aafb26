//! The list of tables -> the edit that takes kube-proxy's out.

use super::owned::NFT_TABLE;

/// What is left in place of kube-proxy's tables, so that the kernel goes on translating the connections that it holds.
/// It takes its NAT hooks out of a namespace with the last base chain of type nat (`nf_nat_unregister_fn`,
/// net/netfilter/nf_nat_core.c), and connection tracking with the last rule that needs it (`nf_ct_netns_put`,
/// nf_conntrack_proto.c); from then on the packets of translated connections go out as they came in. A base chain with
/// a rule that asks for a connection's state holds both, and changes nothing.
pub const HOLDING_TABLE: &str = "portside-holds-nat";

/// The families in which kube-proxy has a table, given what `nft list tables` prints.
pub fn families(list: &str) -> Vec<&'static str> {
    ["ip", "ip6"]
        .into_iter()
        .filter(|family| has(list, family, NFT_TABLE))
        .collect()
}

/// The families that have a holding table.
pub fn held(list: &str) -> Vec<&'static str> {
    ["ip", "ip6"]
        .into_iter()
        .filter(|family| has(list, family, HOLDING_TABLE))
        .collect()
}

/// What `nft -f` takes, as one transaction.
pub fn plan(families: &[&str]) -> String {
    families
        .iter()
        .map(|family| {
            format!(
                "table {family} {HOLDING_TABLE} {{\n\
                 \tchain prerouting {{\n\
                 \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
                 \t\tct state new accept\n\
                 \t}}\n\
                 }}\n\
                 delete table {family} {NFT_TABLE}\n"
            )
        })
        .collect()
}

fn has(list: &str, family: &str, table: &str) -> bool {
    list.lines()
        .any(|line| line.split_whitespace().eq(["table", family, table]))
}
