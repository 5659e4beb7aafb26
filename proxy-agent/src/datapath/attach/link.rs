//! The device that a pinned link is at.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;

/// `BPF_OBJ_GET` of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const OBJ_GET: libc::c_long = 7;

/// What `BPF_OBJ_*` takes of `union bpf_attr`.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// An error where the link of `pin` is not at the device with this index: that one is gone, and another may have been
/// given its index since.
///
/// The kernel tells the device of a link in the fdinfo of its handle. To ask the device for its programs would take
/// CAP_SYS_ADMIN, as every look-up of a BPF object by its number does, and the agent runs without it.
pub fn is_at(pin: &Path, ifindex: u32) -> Result<()> {
    let link = open(pin)?;
    let path = format!("/proc/self/fdinfo/{}", link.as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let found = field(&info, "ifindex").context("the kernel does not tell the link's device")?;
    ensure!(found != 0, "its device is gone");
    ensure!(found == ifindex, "it is at device {found}");
    Ok(())
}

fn field(info: &str, name: &str) -> Option<u32> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    value.trim().parse().ok()
}

fn open(pin: &Path) -> Result<OwnedFd> {
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let object = Object {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: bpf(2) reads `object` and the path in it, both of which live until it returns, and writes neither.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET,
            &raw const object,
            size_of::<Object>(),
        )
    };
    if fd < 0 {
        bail!("opening {}: {}", pin.display(), io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_as_the_kernel_writes_it() {
        // bpf_link_show_fdinfo and tcx_link_fdinfo, Linux 6.12.
        let info = "pos:\t0\nflags:\t02000000\nlink_type:\ttcx\nlink_id:\t4\nprog_tag:\t0a\nprog_id:\t31\n\
                    ifindex:\t7\nattach_type:\t46 (tcx_ingress)\n";
        assert_eq!(field(info, "ifindex"), Some(7));
        assert_eq!(field(info, "netns_ino"), None);
    }
}
