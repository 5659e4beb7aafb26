//! A network namespace to try things in, which ends with the attempt.

use std::{fs::File, panic::resume_unwind, thread};

use anyhow::{Context, Result};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
};
use proxy_common::abi::IfIndex;
use rtnetlink::{LinkUnspec, LinkVeth, new_connection};

use crate::datapath::Target;

const ENDS: [&str; 2] = ["probe0", "probe1"];

/// A network namespace with a veth pair that is up at both ends. It ends with the value.
pub struct Scratch {
    device: Target,
    namespace: File,
}

impl Scratch {
    /// # Errors
    /// Where no namespace can be made: it takes CAP_SYS_ADMIN.
    pub fn make() -> Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("a network namespace to try it in takes CAP_SYS_ADMIN")?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(add_veth())
                .context("making a veth pair to try it on")?;
            Ok(Self {
                device: Target::ethernet(IfIndex(if_nametoindex(ENDS[0])?), ENDS[0].to_owned()),
                namespace: File::open("/proc/thread-self/ns/net")?,
            })
        };
        match thread::spawn(make).join() {
            Ok(made) => made,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs `work` in the namespace, with one end of the pair.
    pub fn run<T: Send>(&self, work: impl FnOnce(&Target) -> T + Send) -> T {
        let inside = || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET)
                .expect("a namespace that this process made and holds can be entered");
            work(&self.device)
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        })
    }
}

async fn add_veth() -> Result<()> {
    let (connection, handle, _) = new_connection()?;
    tokio::spawn(connection);
    let pair = LinkVeth::new(ENDS[0], ENDS[1]).build();
    handle.link().add(pair).execute().await?;
    for end in ENDS {
        let up = LinkUnspec::new_with_name(end).up().build();
        handle.link().set(up).execute().await?;
    }
    Ok(())
}
