//! A control group whose processes may have only so much memory, what their BPF maps take in the kernel included.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{Run, mounted};
use crate::runner::CannotRun;

/// Dropped when its processes have ended, it is gone.
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// One of this run, by whichever version of control groups has the memory controller here.
    pub fn of(run: &Run, bytes: u64) -> Result<Self> {
        let (root, limit) = root()?.context(CannotRun("no memory controller of control groups"))?;
        let group = Self(root.join(run.netns_name("memory")));
        fs::create_dir(&group.0).with_context(|| format!("creating {}", group.0.display()))?;
        let limit = group.0.join(limit);
        fs::write(&limit, bytes.to_string())
            .with_context(|| format!("writing {}", limit.display()))?;
        Ok(group)
    }

    /// The file to which a process writes in order to enter.
    pub fn processes(&self) -> Result<File> {
        let file = self.0.join("cgroup.procs");
        let open = OpenOptions::new().write(true).open(&file);
        open.with_context(|| format!("opening {}", file.display()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where groups of the memory controller are made, and the name of the file with the limit.
fn root() -> Result<Option<(PathBuf, &'static str)>> {
    let has_memory = |options: &str| options.split(',').any(|one| one == "memory");
    if let Some(root) = mounted("cgroup", has_memory)? {
        return Ok(Some((root, "memory.limit_in_bytes")));
    }
    let Some(root) = mounted("cgroup2", |_| true)? else {
        return Ok(None);
    };
    let there = fs::read_to_string(root.join("cgroup.controllers"))?;
    if !there.split_whitespace().any(|one| one == "memory") {
        return Ok(None);
    }
    fs::write(root.join("cgroup.subtree_control"), "+memory")
        .context("giving groups the memory controller")?;
    Ok(Some((root, "memory.max")))
}
