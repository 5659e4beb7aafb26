//! How many files the rows of one process may have open: sockets, namespaces, maps and pipes of many clusters at a time.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a process gets from systemd, containerd and the kernel unless something else is said (`INR_OPEN_CUR`).
const USUAL: u64 = 1024;

/// Asks for as many as there may be. The usual 1,024 were too few for the rows that run side by side in a virtual machine.
pub fn allow_all() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        eprintln!("the limit of open files stays as it is: {error}");
    }
}

/// Starts `command` with the usual limit, whatever this process has.
pub fn give_usual(command: &mut Command) {
    let lower = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, USUAL.min(hard), hard)?;
        io::Result::Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(lower) };
}
