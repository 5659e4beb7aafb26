//! A thread that stays on one CPU.
//!
//! Clients that connect without a pause need it, and their servers: where the last packet of a handshake and the first one of content are
//! sent from different CPUs, veths hand them on in either order, or at once. A server's kernel takes them by turns
//! from a request for a connection and from the connection that it becomes, and in between (net/ipv4/inet_hashtables.c,
//! `inet_ehash_insert`) a packet may find neither: it is answered by a RST. Of 1.1 million connections straight to a
//! pod, past every service, 7 ended so on two CPUs. A NIC gives all packets of a connection to one queue.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread, and those that it starts, on one CPU; dropped, the thread may run where it could before.
pub struct OneCpu {
    pub cpu: usize,
    before: CpuSet,
}

impl OneCpu {
    /// The last one that the thread may use: the first one has most of the machine's interrupts.
    pub fn stay() -> Result<Self> {
        let this_thread = Pid::from_raw(0);
        let before = sched_getaffinity(this_thread)?;
        let cpu = (0..CpuSet::count())
            .rev()
            .find(|&cpu| before.is_set(cpu) == Ok(true))
            .context("no CPU to run on")?;
        let mut one = CpuSet::new();
        one.set(cpu)?;
        sched_setaffinity(this_thread, &one)?;
        Ok(Self { cpu, before })
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // It was set so before.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}
