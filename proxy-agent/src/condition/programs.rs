//! Are the programs where the agent wants them? The kernel is asked for each.

use std::collections::BTreeMap;

use anyhow::Result;
use proxy_common::abi::IfIndex;
use serde::Serialize;

use crate::{
    datapath::{By, PinDir, Wanted},
    node::{self, XdpAt},
};

/// One program at one device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    pub hook: String,
    pub device: String,
    pub ifindex: IfIndex,
    /// `native` or `generic` (XDP), `tcx`, `clsact`; `-` where it could not be attached.
    pub mode: &'static str,
    /// Why the kernel does not run it there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// Asks for all that are wanted.
pub fn programs(pins: &PinDir, wanted: &[Wanted]) -> Result<Vec<Program>> {
    let xdp = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(node::xdp_programs())?;
    let lost = pins.lost(wanted)?;
    Ok(wanted
        .iter()
        .zip(lost)
        .map(|(wanted, lost)| Program {
            hook: wanted.hook.clone(),
            device: wanted.device.clone(),
            ifindex: wanted.ifindex,
            mode: mode(wanted, &xdp),
            lost,
        })
        .collect())
}

fn mode(wanted: &Wanted, xdp: &BTreeMap<IfIndex, XdpAt>) -> &'static str {
    match (wanted.by, xdp.get(&wanted.ifindex)) {
        (By::Nothing, _) => "-",
        (By::Filter(_), _) => "clsact",
        (By::Link(program), Some(at)) if at.program == Some(program) => match at.native {
            true => "native",
            false => "generic",
        },
        (By::Link(_), _) if wanted.hook.starts_with("xdp") => "xdp",
        (By::Link(_), _) => "tcx",
    }
}
