//! bpf(2), for commands that aya has no call for, and the end of programs that run.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    thread,
    time::Duration,
};

use nix::libc;
use proxy_common::abi::IfIndex;

/// Commands, as `enum bpf_cmd` counts them (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum Command {
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ObjGetInfoByFd = 15,
    /// Since Linux 5.6.
    MapLookupBatch = 24,
    /// Since Linux 5.6.
    MapUpdateBatch = 26,
    /// Since Linux 5.9.
    LinkDetach = 34,
}

/// Runs a command with the part of `union bpf_attr` that it uses; the kernel takes the rest for zeroes. Returns what the
/// command does, mostly a descriptor or zero.
///
/// # Safety
/// The addresses in `attr` are those of memory that the command may read or write.
pub unsafe fn bpf<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the addresses, and the size is that of `attr`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw mut *attr,
            size_of::<T>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done as i32)
}

/// What `BPF_OBJ_PIN` and `BPF_OBJ_GET` take of `union bpf_attr`.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// What a handle is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Map,
    Program,
    Link,
}

/// A handle of what is pinned at `path`.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path ends with a zero and outlives the call, and the new descriptor is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(bpf(Command::ObjGet, &mut object)?) })
}

/// Pins a map, a program or a link at `path`, where nothing is.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { bpf(Command::ObjPin, &mut object) }.map(drop)
}

/// What `object` is of: every kind has a file of another name (`anon_inode_getfd` in kernel/bpf/syscall.c). The information of one kind
/// can be asked of any, and then lies.
pub fn kind(object: BorrowedFd<'_>) -> io::Result<Option<Kind>> {
    let file = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    // With brackets from Linux 6.14 on, as other anonymous files have them.
    let file = file.to_string_lossy().replace(['[', ']'], "");
    Ok(match &*file {
        "anon_inode:bpf-map" => Some(Kind::Map),
        "anon_inode:bpf-prog" => Some(Kind::Program),
        "anon_inode:bpf_link" | "anon_inode:bpf-link" => Some(Kind::Link),
        _ => None,
    })
}

/// What `BPF_OBJ_GET_INFO_BY_FD` takes of `union bpf_attr`.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, up to what XDP (5.9) and TC (6.6) links say of their device.
#[repr(C)]
#[derive(Default)]
struct RawLink {
    kind: u32,
    id: u32,
    program: u32,
    _pad: u32,
    ifindex: u32,
    attach_type: u32,
}

/// What a link holds together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    pub program: u32,
    /// [`IfIndex::NONE`] for a link that is at no device any more.
    pub ifindex: IfIndex,
}

/// What the kernel says of an XDP or TC link. It needs no right.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut raw = RawLink::default();
    let mut info = Info {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<RawLink>() as u32,
        info: &raw mut raw as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes, for which there is room, and both outlive the call.
    unsafe { bpf(Command::ObjGetInfoByFd, &mut info)? };
    let RawLink {
        program, ifindex, ..
    } = raw;
    Ok(LinkInfo {
        program,
        ifindex: IfIndex(ifindex),
    })
}

/// What no program runs for, on a kernel that cannot tell.
const LONG: Duration = Duration::from_millis(50);

/// Waits until every program that runs now has ended: what comes after it sees what was changed before.
///
/// Programs run in a read-side critical section of RCU, whose end membarrier(2) waits for by MEMBARRIER_CMD_GLOBAL; not with
/// `nohz_full` (kernel/sched/membarrier.c).
pub fn wait_for_programs() {
    // SAFETY: no addresses are given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_membarrier,
            libc::MEMBARRIER_CMD_GLOBAL,
            0 as libc::c_uint,
            0 as libc::c_int,
        )
    };
    if done != 0 {
        thread::sleep(LONG);
    }
}
