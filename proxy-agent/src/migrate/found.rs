//! Finds what kube-proxy left, and changes nothing.

use std::fs;

use anyhow::{Result, ensure};

use super::{iptables, nftables, owned, tool};

/// The packet filter's tables of kube-proxy in this network namespace.
///
/// A tool whose kernel module is not loaded is not called, as it would load it: such a filter has no rules.
///
/// # Errors
/// Where rules may be there and no tool can look, or a tool fails.
pub fn left_by_kube_proxy() -> Result<Vec<String>> {
    let mut left = Vec::new();
    let mut unseen = Vec::new();
    if has_nf_tables() {
        match tool::run("nft", &["list", "tables"], "")? {
            Some(list) => left.extend(
                nftables::families(&list)
                    .iter()
                    .map(|family| format!("nft table {family} {}", owned::NFT_TABLE)),
            ),
            None => unseen.push("nft"),
        }
        iptables_of(["iptables-nft", "ip6tables-nft"], &mut left, &mut unseen)?;
    }
    if has_legacy_tables() {
        iptables_of(
            ["iptables-legacy", "ip6tables-legacy"],
            &mut left,
            &mut unseen,
        )?;
    }
    ensure!(
        !left.is_empty() || unseen.is_empty(),
        "not installed: {}",
        unseen.join(", ")
    );
    Ok(left)
}

fn iptables_of(
    tools: [&'static str; 2],
    left: &mut Vec<String>,
    unseen: &mut Vec<&'static str>,
) -> Result<()> {
    for name in tools {
        match tool::run(&format!("{name}-save"), &[], "")? {
            Some(dump) => left.extend(
                iptables::plan(&dump)
                    .tables
                    .iter()
                    .map(|table| format!("{name} table {}", table.name)),
            ),
            None => unseen.push(name),
        }
    }
    Ok(())
}

/// The kernel has it, built in or loaded. Names are there for everybody to read; addresses are not asked for.
fn has_nf_tables() -> bool {
    fs::read_to_string("/proc/kallsyms").is_ok_and(|symbols| {
        symbols
            .lines()
            .any(|line| line.split_ascii_whitespace().nth(2) == Some("nft_register_expr"))
    })
}

fn has_legacy_tables() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .any(|file| fs::read_to_string(file).is_ok_and(|names| !names.is_empty()))
}
