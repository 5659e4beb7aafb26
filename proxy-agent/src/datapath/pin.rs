//! The directory that keeps the datapath alive without its agent.
//!
//! ```text
//! DIR/portside-v1/NAME            a map
//! DIR/portside-v1/links/HOOK-IF   a link: hook and interface index
//! ```
//!
//! The version of the map ABI is part of the name, so that an agent never adopts what it cannot read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, MapInfo};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use proxy_common::abi;

use super::{Maps, Shape};

/// The pin directory of one datapath.
#[derive(Clone, Debug)]
pub struct PinDir {
    root: PathBuf,
}

impl PinDir {
    /// The directory of this ABI version under `bpffs`.
    pub fn new(bpffs: &Path) -> Self {
        Self {
            root: bpffs.join(format!("portside-v{}", abi::VERSION)),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub fn link(&self, hook: &str, ifindex: u32) -> PathBuf {
        self.links().join(format!("{hook}-{ifindex}"))
    }

    /// Makes the directories, if they are not there.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(self.links())
            .with_context(|| format!("making the pin directory {}", self.links().display()))?;
        let kind = statfs(&self.root)
            .with_context(|| format!("looking at {}", self.root.display()))?
            .filesystem_type();
        ensure!(
            kind == BPF_FS_MAGIC,
            "{} is not on a bpf filesystem: mount one (mount -t bpf bpf /sys/fs/bpf), or name a directory of one by --bpffs",
            self.root.display()
        );
        Ok(())
    }

    /// Is every map that is pinned here of its shape?
    pub fn check(&self, shapes: &[Shape]) -> Result<()> {
        for shape in shapes {
            let path = self.map(shape.name);
            if path.exists() {
                MapInfo::from_pin(&path)
                    .map_err(anyhow::Error::from)
                    .and_then(|found| shape.check(&found))
                    .with_context(|| format!("the pinned map {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The maps of a datapath that runs.
    pub fn open_maps(&self) -> Result<Maps> {
        ensure!(
            self.root.exists(),
            "no datapath under {}: is the agent running with another --bpffs?",
            self.root.display()
        );
        Maps::open(|name| {
            let path = self.map(name);
            let data = MapData::from_pin(&path)
                .with_context(|| format!("opening the pinned map {}", path.display()))?;
            Map::from_map_data(data).with_context(|| format!("map {name}"))
        })
    }

    /// How many entries a pinned map has room for.
    pub fn size(&self, name: &str) -> Result<u32> {
        let path = self.map(name);
        let info = MapInfo::from_pin(&path)
            .with_context(|| format!("looking at the pinned map {}", path.display()))?;
        Ok(info.max_entries())
    }

    /// The pins of all links.
    pub fn pinned_links(&self) -> Result<Vec<PathBuf>> {
        let dir = self.links();
        match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found
                .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
                .with_context(|| format!("reading {}", dir.display())),
        }
    }

    /// Removes everything. Links end with it; maps end when no program uses them.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| format!("removing {}", self.root.display())),
        }
    }
}
