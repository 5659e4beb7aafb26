//! Pinned links: the device that one is at, and its end.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result, ensure};
use proxy_common::abi::IfIndex;

use crate::datapath::{
    pin::clear,
    sys::{Command, bpf},
};

/// What `BPF_OBJ_*` takes of `union bpf_attr`.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// What `BPF_LINK_DETACH` takes of it.
#[repr(C)]
struct Detached {
    link_fd: u32,
}

/// Takes the program of a pinned link off its device and removes the pin. Nothing where there is no such pin.
///
/// Of a link that only loses its pin, the kernel takes the program off some time later: a program that is attached next would find
/// the place taken.
pub fn remove(pin: &Path) -> Result<()> {
    match open(pin) {
        Ok(link) => {
            let mut detached = Detached {
                link_fd: link.as_raw_fd() as u32,
            };
            // SAFETY: there are no addresses in it. Where it fails the link is not of a device or its device is gone:
            // then it ends with its pin.
            let _ = unsafe { bpf(Command::LinkDetach, &mut detached) };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // No link: a pin of something else, or of none.
        Err(_) => {}
    }
    clear(pin).with_context(|| format!("removing {}", pin.display()))
}

/// An error where the link of `pin` is not at the device with this index: that one is gone, and another may have been
/// given its index since.
///
/// The kernel tells the device of a link in the fdinfo of its handle. To ask the device for its programs would take
/// CAP_SYS_ADMIN, as every look-up of a BPF object by its number does, and the agent runs without it.
pub fn is_at(pin: &Path, ifindex: IfIndex) -> Result<()> {
    let link = open(pin).with_context(|| format!("opening {}", pin.display()))?;
    let path = format!("/proc/self/fdinfo/{}", link.as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let found = field(&info, "ifindex").context("the kernel does not tell the link's device")?;
    let found = IfIndex(found);
    ensure!(found != IfIndex::NONE, "its device is gone");
    ensure!(found == ifindex, "it is at device {found}");
    Ok(())
}

fn field(info: &str, name: &str) -> Option<u32> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    value.trim().parse().ok()
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path ends with a zero and outlives the call, and the new descriptor is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(bpf(Command::ObjGet, &mut object)?) })
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
