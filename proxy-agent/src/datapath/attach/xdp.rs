//! XDP links.

use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    programs::{
        Xdp,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode as Kernel},
    },
};
use proxy_common::{abi::IfIndex, edge::hook::Hook};

use super::{Target, XdpMode, link};
use crate::datapath::program;

/// Attaches by the link that is pinned at `pin`, or by a new one.
pub fn attach(
    ebpf: &mut Ebpf,
    hook: &Hook,
    target: &Target,
    mode: XdpMode,
    pin: Option<&Path>,
) -> Result<FdLink> {
    let program = program::xdp(ebpf, hook.name)?;
    if let Some(pin) = pin.filter(|pin| pin.exists()) {
        match adopt(program, target.ifindex, pin) {
            Ok(link) => return Ok(link),
            // A link of a device that is gone, or of another one that had this index.
            Err(error) => {
                tracing::debug!("not adopting {}: {error:#}", pin.display());
                link::remove(pin)?;
            }
        }
    }
    let mode = match mode {
        XdpMode::Auto | XdpMode::Native => Kernel::Driver,
        XdpMode::Generic => Kernel::Skb,
        XdpMode::Off => bail!("XDP is off"),
    };
    let id = program.attach_to_if_index(target.ifindex.0, mode)?;
    program
        .take_link(id)?
        .try_into()
        .context("the kernel has no XDP links")
}

fn adopt(program: &mut Xdp, ifindex: IfIndex, pin: &Path) -> Result<FdLink> {
    link::is_at(pin, ifindex)?;
    let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    Ok(program.take_link(id)?.try_into()?)
}
