//! TC links, of kernel 6.6 and later.

use std::path::Path;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use nix::libc;
use proxy_common::{abi::IfIndex, edge::hook::Hook};

use super::{Target, direction, link};
use crate::datapath::program;

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel has no TC links (they came with Linux 6.6)")]
    Unsupported,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Attaches by the link that is pinned at `pin`, or by a new one.
pub fn attach(
    ebpf: &mut Ebpf,
    hook: &Hook,
    program: &str,
    target: &Target,
    pin: Option<&Path>,
) -> Result<FdLink, Error> {
    let program = program::classifier(ebpf, program)?;
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
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    match program.attach_with_options(&target.name, direction(hook), order) {
        Ok(id) => Ok(program
            .take_link(id)
            .map_err(anyhow::Error::from)?
            .try_into()
            .map_err(anyhow::Error::from)?),
        Err(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Err(Error::Unsupported)
        }
        Err(error) => Err(Error::Other(error.into())),
    }
}

fn adopt(program: &mut SchedClassifier, ifindex: IfIndex, pin: &Path) -> anyhow::Result<FdLink> {
    link::is_at(pin, ifindex)?;
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    Ok(program.take_link(id)?.try_into()?)
}
