//! `proxy-agent doctor`: what runs here, how and why.
//!
//! In: the kernel's answers to probes, mounts, capabilities, switches, devices and what others have put there. Out: a
//! [`Report`]. The one rule: the node stays as it is. What has to be attached to be known is attached to a device of a
//! network namespace that is made for it; only reading happens in the node's own.
//!
//! | file | subject |
//! |---|---|
//! | `report` | findings and what follows |
//! | `kernel` | release, BTF, JIT compiler, BPF features, hooks |
//! | `place` | mounts, capabilities, switches |
//! | `devices` | what each device would have, and who else is there |
//! | `others` | kube-proxy and CNI programs |

mod devices;
mod kernel;
mod others;
mod place;
mod report;

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    datapath::{TcMode, XdpMode},
    node::{Netlink, Selection},
    state::Place,
};

pub use self::report::{Check, Report, Verdict};

/// The choices of `run` that matter here.
#[derive(Clone, Debug, clap::Args)]
pub struct Choices {
    /// As for `run`
    #[arg(long, value_name = "auto|NAMES", default_value = "auto")]
    pub uplinks: Selection,
    /// As for `run`
    #[arg(long, value_name = "auto|NAMES", default_value = "auto")]
    pub workloads: Selection,
    /// As for `run`
    #[arg(long, value_enum, default_value_t)]
    pub xdp: XdpMode,
    /// As for `run`
    #[arg(long, value_enum, default_value_t)]
    pub tc: TcMode,
    /// As for `run`
    #[arg(long, value_name = "DIR", default_value = "/proc/sys")]
    pub proc_sys: PathBuf,
    #[command(flatten)]
    pub place: Place,
}

/// Who else handles services on this node, and what follows, a line each.
pub fn others() -> Vec<String> {
    let checks = others::checks().into_iter();
    checks
        .filter(|check| check.verdict != Verdict::Ok && check.found != "unknown")
        .map(|check| format!("{}: {}: {}", check.name, check.found, check.follows))
        .collect()
}

/// Looks at everything, and tries out `object`.
///
/// # Errors
/// Where the node's devices cannot be listed. What a probe does not find out is in the report.
pub async fn examine(args: &Choices, object: &[u8]) -> Result<Report> {
    let mut checks = kernel::checks(&args.proc_sys);
    let tried = kernel::try_hooks(object);
    checks.extend(kernel::hook_checks(&tried, args.tc));
    checks.extend(place::mounts(&args.place));
    checks.extend(place::capabilities());
    checks.extend(place::switches(&args.proc_sys));
    let view = Netlink::open().await?.view().await?;
    checks.extend(devices::checks(args, &view, tried.as_ref().ok()).await?);
    checks.extend(others::checks());
    Ok(Report::new(checks))
}
