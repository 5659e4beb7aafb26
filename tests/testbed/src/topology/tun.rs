//! Tun devices, and the process's threads that carry packets between two of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Netns;

/// How often a thread looks whether it is to end, in milliseconds.
const LOOKS: u16 = 100;

/// Makes a tun device that stays; [`Pump`] opens it.
pub(super) fn create(netns: &Netns, name: &str) -> Result<()> {
    netns.ip(&format!("tuntap add dev {name} mode tun\n"))
}

fn open(name: &str) -> io::Result<File> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the call takes such a structure, which outlives it.
    let done = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&tun),
            libc::TUNSETIFF,
            &raw mut request,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tun)
}

/// Carries packets both ways until it is dropped.
pub struct Pump {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pump {
    /// Between two devices, each by its namespace and its name.
    pub(super) fn start(ends: [(&Netns, String); 2]) -> Result<Self> {
        let [a, b] = ends.map(|(netns, name)| netns.run(|| open(&name)));
        let (a, b) = (
            a.context("opening a tun device")?,
            b.context("opening a tun device")?,
        );
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (from, to) in [(a.try_clone()?, b.try_clone()?), (b, a)] {
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || carry(from, to, &stop)));
        }
        Ok(Self {
            ends: stop,
            threads,
        })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn carry(mut from: File, mut to: File, stop: &AtomicBool) {
    let mut packet = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let mut waited = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut waited, PollTimeout::from(LOOKS)), Ok(1..)) {
            continue;
        }
        // One that cannot be read or written (the device is down) is lost, as on a wire.
        if let Ok(len) = from.read(&mut packet) {
            let _ = to.write(&packet[..len]);
        } else {
            thread::sleep(std::time::Duration::from_millis(LOOKS.into()));
        }
    }
}
