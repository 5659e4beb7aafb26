//! The masquerading that flannel installs: pods leave the pod range under the node's address.
//!
//! It is part of the overlay topology because a service proxy has to live with it, and because a pod's own address is
//! not routed outside an overlay. It needs `nft`; rows that rest on it are ignored where there is none.

use std::process::{Command, Stdio};
use std::sync::LazyLock;

use anyhow::Result;

use crate::address::{self, POD_RANGE_V4, POD_RANGE_V6};
use crate::netns::Netns;

/// Why a row that needs masquerading cannot run here.
pub const MISSING: &str = "needs nft";

pub fn available() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| {
        let version = Command::new("nft")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    });
    *FOUND
}

pub(crate) fn install(netns: &Netns, node: u8) -> Result<()> {
    let own = address::pod(node, 0);
    let rules: String = [
        ("ip", POD_RANGE_V4, format!("{}/24", own.v4), "224.0.0.0/4"),
        ("ip6", POD_RANGE_V6, format!("{}/64", own.v6), "ff00::/8"),
    ]
    .iter()
    .map(|(ip, pods, own, multicast)| {
        format!(
            "{ip} saddr {own} {ip} daddr {pods} return\n\
             {ip} saddr {pods} {ip} daddr {own} return\n\
             {ip} saddr != {pods} {ip} daddr {own} return\n\
             {ip} saddr {pods} {ip} daddr != {multicast} masquerade\n\
             {ip} saddr != {pods} {ip} daddr {pods} masquerade\n"
        )
    })
    .collect();
    let table = format!(
        "table inet flannel {{\n\
         chain postrouting {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         {rules}}}\n\
         }}\n"
    );
    netns.batch("nft", &["-f", "-"], &table)
}
