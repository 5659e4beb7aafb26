//! Programs that let everything pass: they are there, and do nothing.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::SchedClassifier;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType, qdisc_add_clsact};
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

use crate::netns::Netns;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_LINK_CREATE: libc::c_long = 28;
pub(crate) const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// Native mode.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Of the programs, and of a filter.
const NAME: &[u8; 16] = b"lets_pass\0\0\0\0\0\0\0";

/// `XDP_PASS` and `TC_ACT_UNSPEC`: on to what comes next.
const XDP_PASS: i32 = 2;
pub(crate) const TC_ACT_UNSPEC: i32 = -1;

/// `r0 = verdict; exit`, as `struct bpf_insn`s.
const fn verdict(verdict: i32) -> [u64; 2] {
    [(verdict as u32 as u64) << 32 | 0xb7, 0x95]
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    /// No log, no version, no flags.
    log: [u64; 3],
    name: [u8; 16],
    rest: [u64; 7],
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

/// The head of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    rest: [u32; 25],
}

/// An XDP program at the far end of a veth whose near end sends with `XDP_TX`; dropped, it detaches.
///
/// veth hands frames of `XDP_TX` to a peer that polls, and wakes it only if it has an XDP program of its own
/// (kernel drivers/net/veth.c, `veth_xdp_flush`); receive offload alone makes it poll but is not woken.
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// # Errors
    /// Where it cannot be loaded, or the interface has a program already.
    pub fn attach(netns: &Netns, interface: &str) -> Result<Self> {
        let link = netns
            .run(|| {
                let program = load(BPF_PROG_TYPE_XDP, XDP_PASS)?;
                link(program.as_raw_fd(), interface)
            })
            .with_context(|| {
                format!(
                    "attaching an XDP program to {interface} in {}",
                    netns.name()
                )
            })?;
        Ok(Self { _link: link })
    }
}

/// A TC filter at the ingress of `interface`, as others attach theirs: through netlink, at the kernel's own choice of a
/// place. It stays as long as the device.
///
/// # Errors
/// Where it cannot be loaded, pinned at `pin` or attached.
pub fn filter(netns: &Netns, interface: &str, pin: &Path) -> Result<()> {
    netns
        .run(|| -> Result<()> {
            let program = load(BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC)?;
            let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
            let attr = Pin {
                path: path.as_ptr() as u64,
                fd: program.as_raw_fd() as u32,
                rest: [0; 25],
            };
            call(BPF_OBJ_PIN, &attr)?;
            qdisc_add_clsact(interface)?;
            let mut program = SchedClassifier::from_pin(pin)?;
            let place = TcAttachOptions::Netlink(NlOptions::default());
            let link = program.attach_with_options(interface, TcAttachType::Ingress, place)?;
            // Its drop would delete the filter.
            std::mem::forget(program.take_link(link)?);
            Ok(())
        })
        .with_context(|| format!("a TC filter at {interface} in {}", netns.name()))
}

pub(crate) fn load(kind: u32, value: i32) -> io::Result<OwnedFd> {
    let code = verdict(value);
    // Without the right to (CAP_SYS_RESOURCE) the kernel may be one that does not count; if it is not, it says so below.
    let _unlimited = LockedMemory::unlimited().ok();
    bpf(
        BPF_PROG_LOAD,
        &LoadProgram {
            kind,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 3],
            name: *NAME,
            rest: [0; 7],
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
pub(crate) fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the kernel gave a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn call<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: the attribute is laid out as the command's part of `union bpf_attr`, with zeroes after it, and
    // outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}
