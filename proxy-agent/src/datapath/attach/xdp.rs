//! XDP links.

use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    programs::{
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode as Kernel},
    },
};
use proxy_common::hook::Hook;

use super::{Target, XdpMode, remove_pin};
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
        let adopted = PinnedLink::from_pin(pin)
            .and_then(|link| XdpLink::try_from(FdLink::from(link)))
            .map_err(anyhow::Error::from)
            .and_then(|link| Ok(program.attach_to_link(link)?));
        match adopted {
            Ok(id) => return Ok(program.take_link(id)?.try_into()?),
            // A link of a device that is gone.
            Err(error) => {
                tracing::debug!("not adopting {}: {error:#}", pin.display());
                remove_pin(pin)?;
            }
        }
    }
    let mode = match mode {
        XdpMode::Auto | XdpMode::Native => Kernel::Driver,
        XdpMode::Generic => Kernel::Skb,
        XdpMode::Off => bail!("XDP is off"),
    };
    let id = program.attach_to_if_index(target.ifindex, mode)?;
    program
        .take_link(id)?
        .try_into()
        .context("the kernel has no XDP links")
}
