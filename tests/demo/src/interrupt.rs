//! Ctrl-C and SIGTERM: the demo ends at its next step, and cleans up on the way out.

use std::io::stdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::libc::c_int;
use nix::sys::signal::{SigHandler, Signal, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

pub(super) fn listen() -> Result<()> {
    for kind in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { signal(kind, SigHandler::Handler(stop)) }?;
    }
    Ok(())
}

/// An error once a signal has come.
pub(super) fn check() -> Result<()> {
    ensure!(
        !STOPPED.load(Ordering::Relaxed),
        "interrupted; everything was cleaned up"
    );
    Ok(())
}

/// Returns at Enter or at a signal. Without an input there is only the signal.
pub(super) fn wait_for_enter() {
    thread::spawn(|| {
        if matches!(stdin().read_line(&mut String::new()), Ok(1..)) {
            stop(0);
        }
    });
    while !STOPPED.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
}
