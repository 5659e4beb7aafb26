//! Taking over from kube-proxy: removing what it leaves behind in a network namespace.
//!
//! In: what `iptables-save`, `nft list tables`, `ipset list` and netlink say. Out: input for `iptables-restore` and
//! `nft`, and a line of text for each thing that was found. It acts on the network namespace that it runs in.
//!
//! The one rule: what is removed is named here, chain by chain and table by table; whatever else is there stays,
//! also where its name begins with `KUBE-`.
//!
//! | file | subject |
//! |---|---|
//! | `owned` | the names of what kube-proxy makes |
//! | `iptables` | a dump of the rules -> the edit that takes kube-proxy's out; a pure function |
//! | `nftables` | the list of tables -> the edit; a pure function |
//! | `tool` | running the node's programs |
//! | `found` | what is there, only looked at |
//! | `cleanup` | one mechanism after the other, and the report |

mod cleanup;
mod found;
mod iptables;
mod nftables;
mod owned;
#[cfg(test)]
mod tests;
mod tool;

pub use self::{cleanup::remove_kube_proxy, found::left_by_kube_proxy};
