//! Everything that crosses one interface, collected from when the capture starts until it is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::packet_socket::PacketSocket;
use super::seen::{Checksums, Seen};
use crate::netns::Netns;
use crate::patience::eventually;

const POLL: Duration = Duration::from_millis(50);

pub struct Capture {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Captures IP packets on `interface` of `netns`, from now on.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = PacketSocket::open(netns, interface)?;
        socket.set_timeout(POLL)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (collected, stopping) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                match socket.receive() {
                    Ok(frame) => {
                        let parsed = frame.as_ref().and_then(Seen::of);
                        collected
                            .lock()
                            .expect("the collector does not panic")
                            .extend(parsed);
                    }
                    // The interface went away: there is nothing more to see.
                    Err(_) => break,
                }
            }
        });
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// What was seen so far, in order.
    pub fn packets(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .expect("the collector does not panic")
            .clone()
    }

    /// The first packet that is `wanted`, waited for.
    pub fn find(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Result<Seen> {
        eventually(what, || {
            let packets = self.packets();
            packets
                .iter()
                .find(|seen| wanted(seen))
                .cloned()
                .ok_or_else(|| anyhow!("not among {packets:#?}"))
        })
    }

    /// The packets whose checksums are wrong, of all that crossed the interface.
    pub fn broken(&self) -> Vec<Seen> {
        let wrong = [Checksums::WrongHeader, Checksums::WrongTransport];
        self.packets()
            .into_iter()
            .filter(|seen| wrong.contains(&seen.checksums))
            .collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
