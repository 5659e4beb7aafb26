//! The names and the directory of one build of a topology, and the removal of what dead owners left behind.
//!
//! Every namespace and directory is named `psd<pid>-<n>…`, so two runs side by side never meet, and a leftover tells
//! whose it was. The first run of a process removes what belongs to processes that no longer exist.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::netns::NETNS_DIR;

const RUN_DIR: &str = "/run/portside-testbed";
const PREFIX: &str = "psd";

/// One build of a topology. Dropping it removes its directories; the namespaces drop themselves.
pub struct Run {
    name: String,
    dir: PathBuf,
    cgroup: PathBuf,
}

impl Run {
    pub fn start() -> Result<Self> {
        static REAP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        REAP.call_once(reap);

        let name = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = Path::new(RUN_DIR).join(&name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let cgroup = cgroup2_mount()?.join(&name);
        fs::create_dir(&cgroup).with_context(|| format!("creating {}", cgroup.display()))?;
        Ok(Self { name, dir, cgroup })
    }

    /// The name of a namespace of this run, as `ip netns` shows it.
    pub fn netns_name(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// A directory of this run.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// A BPF file system of its own.
    pub fn bpffs(&self, node: &str) -> Result<PathBuf> {
        let path = self.directory(&format!("{node}.bpffs"))?;
        mount(
            Some("bpffs"),
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mounting bpffs at {}", path.display()))?;
        Ok(path)
    }

    /// A control group of its own.
    pub fn cgroup(&self, node: &str) -> Result<PathBuf> {
        let path = self.cgroup.join(node);
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        remove_directory(&self.dir);
        remove_cgroup(&self.cgroup);
    }
}

/// Removes every namespace, mount and directory whose owner is dead. Best effort: another run may be reaping too.
pub fn reap() {
    for name in entries(Path::new(NETNS_DIR)).filter(|name| is_orphan(name)) {
        crate::netns::remove(&name);
    }
    for name in entries(Path::new(RUN_DIR)).filter(|name| is_orphan(name)) {
        remove_directory(&Path::new(RUN_DIR).join(name));
    }
    let with_memory = mounted("cgroup", |options| {
        options.split(',').any(|one| one == "memory")
    });
    let roots = [cgroup2_mount().ok(), with_memory.ok().flatten()];
    for root in roots.into_iter().flatten() {
        for name in entries(&root).filter(|name| is_orphan(name)) {
            remove_cgroup(&root.join(name));
        }
    }
}

fn is_orphan(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(pid, _)| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn entries(dir: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn remove_directory(dir: &Path) {
    for name in entries(dir) {
        let _ = umount2(&dir.join(name), MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(dir);
}

fn remove_cgroup(dir: &Path) {
    for name in entries(dir) {
        let _ = fs::remove_dir(dir.join(name));
    }
    let _ = fs::remove_dir(dir);
}

fn cgroup2_mount() -> Result<PathBuf> {
    mounted("cgroup2", |_| true)?.context("no cgroup2 file system is mounted")
}

/// Where the first file system of this kind with such options is mounted.
pub(crate) fn mounted(kind: &str, has_options: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let found = mounts.find(|fields| {
        fields.get(2) == Some(&kind) && fields.get(3).is_some_and(|options| has_options(options))
    });
    Ok(found.map(|fields| PathBuf::from(fields[1])))
}
