//! Everything that crosses one interface, collected from when the capture starts until it is dropped.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::packet_socket::{Frame, MAX_FRAME, PacketSocket};
use super::seen::{Checksums, Seen};
use crate::netns::Netns;
use crate::patience::eventually;

const POLL: Duration = Duration::from_millis(50);
/// For what comes while the collector waits for a processor.
const ROOM: usize = 32 << 20;

pub struct Capture {
    collector: Arc<Collector>,
    thread: Option<JoinHandle<()>>,
}

struct Collector {
    socket: PacketSocket,
    collected: Mutex<Collected>,
    stop: AtomicBool,
}

struct Collected {
    room: Vec<u8>,
    /// Not taken apart yet: that takes time, of which there is more when somebody asks than when packets come.
    frames: Vec<Frame>,
    seen: Vec<Seen>,
    /// The interface went away: there is nothing more to see.
    is_over: bool,
}

impl Capture {
    /// Captures IP packets on `interface` of `netns`, from now on.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = PacketSocket::open(netns, interface)?;
        socket.set_room(ROOM)?;
        let collector = Arc::new(Collector {
            socket,
            collected: Mutex::new(Collected {
                room: vec![0; MAX_FRAME],
                frames: Vec::new(),
                seen: Vec::new(),
                is_over: false,
            }),
            stop: AtomicBool::new(false),
        });
        let collecting = Arc::clone(&collector);
        let thread = thread::spawn(move || {
            while !collecting.stop.load(Ordering::Relaxed) {
                if collecting.socket.wait(POLL).is_err() || collecting.collect().is_over {
                    break;
                }
            }
        });
        Ok(Self {
            collector,
            thread: Some(thread),
        })
    }

    /// What was seen so far, in order; all that crossed the interface before this call is among it.
    pub fn packets(&self) -> Vec<Seen> {
        let mut collected = self.collector.collect();
        let frames = mem::take(&mut collected.frames);
        collected.seen.extend(frames.iter().filter_map(Seen::of));
        collected.seen.clone()
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

impl Collector {
    /// Takes what waits at the socket.
    fn collect(&self) -> MutexGuard<'_, Collected> {
        let mut collected = self.collected.lock().expect("a collector does not panic");
        while !collected.is_over {
            match self.socket.receive(&mut collected.room) {
                Ok(Some(frame)) => collected.frames.push(frame),
                Ok(None) => break,
                Err(_) => collected.is_over = true,
            }
        }
        collected
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.collector.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
