//! A mirror port: what leaves by one port of a switch leaves by another, too.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::packet_socket::{MAX_FRAME, PacketSocket};
use super::seen::Seen;
use crate::netns::Netns;

const POLL: Duration = Duration::from_millis(50);

/// Copies frames until it is dropped.
pub struct Mirror {
    stop: Arc<AtomicBool>,
    copied: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Copies every frame for `address` that leaves `netns` by the interface `of` to the interface `to`.
    pub fn start(netns: &Netns, of: &str, to: &str, address: IpAddr) -> Result<Self> {
        let (of, to) = (
            PacketSocket::open(netns, of)?,
            PacketSocket::open(netns, to)?,
        );
        let (stop, copied) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopping, copying) = (Arc::clone(&stop), Arc::clone(&copied));
        let thread = thread::spawn(move || {
            let mut room = vec![0; MAX_FRAME];
            while !stopping.load(Ordering::Relaxed) && of.wait(POLL).is_ok() {
                while let Ok(Some(frame)) = of.receive(&mut room) {
                    let is_wanted = frame.outgoing
                        && Seen::of(&frame).is_some_and(|seen| seen.destination == address);
                    if is_wanted && to.send(&frame.bytes).is_ok() {
                        copying.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self {
            stop,
            copied,
            thread: Some(thread),
        })
    }

    /// How many frames were copied so far.
    pub fn copied(&self) -> usize {
        self.copied.load(Ordering::Relaxed)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
