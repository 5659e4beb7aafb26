//! The memory of this process: how much it may have, what happens when there is no more, and what is given back.
//!
//! | file | subject |
//! |---|---|
//! | `allowance` | how much the control groups allow |
//! | `refused` | an allocation that fails ends the process with a message |
//!
//! The first sync and each scrape of `/metrics` need much of it for a moment. glibc by default keeps one heap for each thread and
//! gives little of any back, so that the agent would stay as large as it ever was. musl gives back by itself.

mod allowance;
mod refused;

pub use self::{allowance::Allowance, refused::Telling};

/// Chooses for the process; to be called before its first thread. Allocations from 128 KiB on are mappings of their own for good
/// (mallopt(3): otherwise the limit rises with what is freed), and all threads share a heap, whose holes they fill.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (nix::libc::M_MMAP_THRESHOLD, 128 << 10),
        (nix::libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt(3) takes two integers and touches nothing of ours.
        unsafe { nix::libc::mallopt(parameter, value) };
    }
}

/// Gives the pages back that are free now.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes an integer and moves nothing that is in use.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
