//! An XDP program that lets everything pass, for the far end of a veth whose near end sends with `XDP_TX`.
//!
//! veth hands frames of `XDP_TX` to a peer that polls, and wakes it only if it has an XDP program of its own
//! (kernel drivers/net/veth.c, `veth_xdp_flush`); receive offload alone makes it poll but is not woken.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

use crate::netns::Netns;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// Native mode.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `r0 = XDP_PASS; exit`, as `struct bpf_insn`s.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    rest: [u64; 12],
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct CreateLink {
    program: u32,
    ifindex: u32,
    kind: u32,
    flags: u32,
    rest: [u64; 12],
}

/// Keeps the program on its device; dropped, it detaches.
pub(crate) struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    pub(crate) fn attach(netns: &Netns, interface: &str) -> Result<Self> {
        let link = netns
            .run(|| link(load()?.as_raw_fd(), interface))
            .with_context(|| {
                format!(
                    "attaching an XDP program to {interface} in {}",
                    netns.name()
                )
            })?;
        Ok(Self { _link: link })
    }
}

fn load() -> io::Result<OwnedFd> {
    // Without the right to (CAP_SYS_RESOURCE) the kernel may be one that does not count; if it is not, it says so below.
    let _unlimited = LockedMemory::unlimited().ok();
    bpf(
        BPF_PROG_LOAD,
        &LoadProgram {
            kind: BPF_PROG_TYPE_XDP,
            instructions: PASS.len() as u32,
            code: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            rest: [0; 12],
        },
    )
}

/// No limit of locked memory, until it goes: before Linux 5.11 programs and maps count as such, those that the agents
/// hold, too, and a limit is told as a missing right. The agents lift their own.
struct LockedMemory {
    before: (rlim_t, rlim_t),
}

impl LockedMemory {
    fn unlimited() -> io::Result<Self> {
        let before = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
        Ok(Self { before })
    }
}

impl Drop for LockedMemory {
    fn drop(&mut self) {
        let (soft, hard) = self.before;
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard);
    }
}

fn link(program: i32, interface: &str) -> io::Result<OwnedFd> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    bpf(
        BPF_LINK_CREATE,
        &CreateLink {
            program: program as u32,
            ifindex,
            kind: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
            rest: [0; 12],
        },
    )
}

/// Calls bpf(2) for a command that gives a file descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is laid out as the command's part of `union bpf_attr`, with zeroes after it, and
    // outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
