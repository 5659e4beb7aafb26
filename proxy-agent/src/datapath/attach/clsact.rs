//! TC filters of a clsact qdisc, for kernels without TC links.
//!
//! A filter stays when the process ends. It has a fixed place, at which a later process replaces it.

use std::{io, mem};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::tc::{
        NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        qdisc_detach_program,
    },
};
use nix::libc;
use proxy_common::edge::hook::Hook;

use super::direction;
use crate::datapath::program;

/// Before the filters of others, which mostly take the kernel's default (49152) or a number in the single digits.
pub(super) const PRIORITY: u16 = 50;
pub(super) const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Returns the id of the program.
pub fn attach(ebpf: &mut Ebpf, hook: &Hook, program: &str, device: &str) -> Result<u32> {
    match qdisc_add_clsact(device) {
        Ok(()) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error).context("adding the clsact qdisc"),
    }
    let program = program::classifier(ebpf, program)?;
    let found = SchedClassifierLink::attached(device, direction(hook), PRIORITY, HANDLE, None)?;
    let id = match program.attach_to_link(found) {
        Ok(id) => id,
        Err(_) => program.attach_with_options(
            device,
            direction(hook),
            TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            }),
        )?,
    };
    // Its drop would delete the filter.
    mem::forget(program.take_link(id)?);
    Ok(program.info()?.id())
}

/// Deletes the filter of `hook`, whichever of its programs it has; `false` where there is none.
pub fn detach(hook: &Hook, device: &str) -> Result<bool> {
    let mut was_there = false;
    for program in hook.programs() {
        was_there |= detach_program(hook, program, device)?;
    }
    Ok(was_there)
}

fn detach_program(hook: &Hook, program: &str, device: &str) -> Result<bool> {
    match qdisc_detach_program(device, direction(hook), program) {
        Ok(()) => Ok(true),
        Err(TcError::IoError(error))
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(false)
        }
        // No such device, or no clsact qdisc at it.
        Err(TcError::NetlinkError(error))
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(false)
        }
        Err(error) => {
            Err(error).with_context(|| format!("deleting the filter {program} of {device}"))
        }
    }
}
