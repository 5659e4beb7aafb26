//! An allocator that says so when it is refused memory.
//!
//! The standard library would end the process by SIGABRT, after a line that names a number of bytes alone. This one names the limit, and
//! ends the process as any other error does. What was programmed stays in the kernel, and the next agent reads it from there: there is
//! nothing to save.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
};

use nix::{
    libc,
    sys::resource::{Resource, getrlimit},
};

/// The system's allocator, which ends the process with a message where that one fails.
#[derive(Debug)]
pub struct Telling;

// SAFETY: every call goes to the system's allocator as it is, and what comes back is never a null pointer.
unsafe impl GlobalAlloc for Telling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract, which is the same.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; what was given out came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn given(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        end(size);
    }
    memory
}

/// Ends the process. Nothing here allocates, and no lock is taken: whoever asked for memory may hold any.
#[cold]
fn end(size: usize) -> ! {
    let mut line = [0; 256];
    let limit = getrlimit(Resource::RLIMIT_AS).ok().map(|(soft, _)| soft);
    let length = write(
        &mut line,
        size,
        limit.filter(|most| *most != libc::RLIM_INFINITY),
    );
    // SAFETY: the bytes are there for as long as the call lasts.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length) };
    // SAFETY: it takes a number, runs no handler and does not return.
    unsafe { libc::_exit(1) }
}

/// The message, cut off where there is no more room; how long it is.
fn write(line: &mut [u8], size: usize, limit: Option<libc::rlim_t>) -> usize {
    let room = line.len();
    let mut rest = line;
    let _ = write!(
        rest,
        "error: out of memory: {size} bytes more were refused; "
    );
    let _ = match limit {
        Some(most) => writeln!(
            rest,
            "this process may have {} MiB of address space (RLIMIT_AS, `ulimit -v`)",
            most >> 20
        ),
        None => writeln!(rest, "the kernel has none left for this process"),
    };
    room - rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_limit_and_fits() {
        let mut line = [0; 256];
        let length = write(&mut line, usize::MAX, Some(64 << 20));
        let text = str::from_utf8(&line[..length]).unwrap();
        assert!(
            text.ends_with("may have 64 MiB of address space (RLIMIT_AS, `ulimit -v`)\n"),
            "{text}"
        );
        let length = write(&mut line, 4096, None);
        let text = str::from_utf8(&line[..length]).unwrap();
        assert_eq!(
            text,
            "error: out of memory: 4096 bytes more were refused; the kernel has none left for this process\n"
        );
        assert_eq!(write(&mut [0; 10], 1, None), 10);
    }
}
