//! bpf(2), for commands that aya has no call for.

use std::io;

use nix::libc;

/// Commands, as `enum bpf_cmd` counts them (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum Command {
    ObjGet = 7,
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
