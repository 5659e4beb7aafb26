//! Runs machines side by side, as many as the host has room for. Each has a thread of its own; one listener hears all.

use std::{
    fs,
    num::NonZero,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Instant,
};

use anyhow::Context as _;

use super::{
    console::{self, Ending, Limits},
    initramfs::{self, Payload},
    kernels::Kernel,
    machine::{self, Accelerator},
    outcome::Said,
};

/// A machine that is to be run.
pub struct Job {
    /// Short, and its own among those that run together.
    pub name: String,
    pub kernel: Arc<Kernel>,
    pub payload: Payload,
    pub limits: Limits,
}

/// The outcome of one machine.
pub struct Ran {
    pub said: Said,
    pub ending: Ending,
    pub seconds: u64,
}

/// Of the job with this number.
pub enum Event {
    Booting,
    Line(String),
    Ended(anyhow::Result<Box<Ran>>),
}

/// How many machines this host runs at once: by its processors, and by the memory that is free.
pub fn room(accelerator: Accelerator) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let by_processors = processors / machine::threads(accelerator);
    let by_memory =
        available_memory_mib().map_or(1, |free| free / (machine::MEMORY_MIB + OVERHEAD_MIB));
    by_processors.min(by_memory).max(1)
}

/// Memory for QEMU itself (most of it translated code) and for packing an initramfs.
const OVERHEAD_MIB: usize = 1024;

fn available_memory_mib() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Runs all, the first ones first; `hear` is told what happens, on this thread.
pub fn run(jobs: &[Job], accelerator: Accelerator, mut hear: impl FnMut(usize, Event)) {
    let next = Mutex::new(jobs.iter().enumerate());
    let (sender, events) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..room(accelerator).min(jobs.len()) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                let take = || {
                    next.lock()
                        .expect("nobody panics while taking a job")
                        .next()
                };
                while let Some((number, job)) = take() {
                    // The listener is there until every sender is gone.
                    let tell = |event| drop(sender.send((number, event)));
                    tell(Event::Booting);
                    let ran = one(job, accelerator, |line| tell(Event::Line(line.to_owned())));
                    tell(Event::Ended(ran.map(Box::new)));
                }
            });
        }
        drop(sender);
        for (number, event) in events {
            hear(number, event);
        }
    });
}

fn one(job: &Job, accelerator: Accelerator, mut on_line: impl FnMut(&str)) -> anyhow::Result<Ran> {
    let Job {
        name,
        kernel,
        payload,
        limits,
    } = job;
    let image = initramfs::pack(kernel, payload, name)
        .with_context(|| format!("packing the initramfs of {name}"))?;
    let start = Instant::now();
    let mut said = Said::of(payload.measures());
    let mut command = machine::qemu(
        accelerator,
        kernel,
        Some(&image.path),
        payload.wire.as_deref(),
    );
    let ending = console::watch(&mut command, limits, |line| {
        on_line(line);
        said.read(line);
    })?;
    Ok(Ran {
        said,
        ending,
        seconds: start.elapsed().as_secs(),
    })
}
