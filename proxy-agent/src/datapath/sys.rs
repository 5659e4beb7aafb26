//! bpf(2), for commands that aya has no call for, and the end of programs that run.

use std::{io, thread, time::Duration};

use nix::libc;

/// Commands, as `enum bpf_cmd` counts them (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum Command {
    ProgLoad = 5,
    ObjGet = 7,
    ProgTestRun = 10,
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
