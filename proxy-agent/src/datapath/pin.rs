//! The directory that keeps the datapath alive without its agent.
//!
//! ```text
//! DIR/portside-v4/NAME            a map
//! DIR/portside-v4/links/HOOK-IF   a link: hook and interface index
//! ```
//!
//! The version of the map ABI is part of the name, so that an agent never adopts what it cannot read. What stands beside it while one
//! agent takes over from another is told in [`super::takeover`].

use std::{
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, MapInfo};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use proxy_common::abi::IfIndex;

use super::{
    Maps,
    shape::Pinned,
    sys,
    takeover::{self, Found, Stage},
};

/// The pin directory of one datapath.
#[derive(Clone, Debug)]
pub struct PinDir {
    root: PathBuf,
}

impl PinDir {
    /// The directory of this ABI version under `bpffs`.
    pub fn new(bpffs: &Path) -> Self {
        Found::own(Stage::InForce).pins(bpffs)
    }

    pub(super) const fn at(root: PathBuf) -> Self {
        Self { root }
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

    pub fn link(&self, hook: &str, ifindex: IfIndex) -> PathBuf {
        self.links().join(format!("{hook}-{ifindex}"))
    }

    /// Makes the directories, if they are not there. Nothing is made where they would not be on a bpf filesystem.
    pub fn create(&self) -> Result<()> {
        on_bpffs(&self.root)?;
        let links = self.links();
        // What others left in its place.
        if links.symlink_metadata().is_ok_and(|file| !file.is_dir()) {
            clear(&links).with_context(|| format!("removing {}", links.display()))?;
        }
        fs::create_dir_all(&links)
            .with_context(|| format!("making the pin directory {}", links.display()))
    }

    /// Gives the directory another name.
    pub(super) fn rename(&self, to: &Self) -> Result<()> {
        rename(&self.root, &to.root)
    }

    /// Takes the links of another directory.
    pub(super) fn take_links(&self, other: &Self) -> Result<()> {
        for link in other.pinned_links()? {
            if let Some(name) = link.file_name() {
                rename(&link, &self.links().join(name))?;
            }
        }
        Ok(())
    }

    /// The shape of a pinned map; `None` where nothing is pinned. What is no map has a shape that no map of ours has.
    pub(super) fn shape(&self, name: &str) -> Result<Option<Pinned>> {
        let path = self.map(name);
        let look = || -> Result<Option<Pinned>> {
            let file = match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            if !file.is_file() {
                return Ok(Some(Pinned::NO_MAP));
            }
            let object = sys::get(&path)?;
            if sys::kind(object.as_fd())? != Some(sys::Kind::Map) {
                return Ok(Some(Pinned::NO_MAP));
            }
            let info = MapInfo::from_pin(&path)?;
            Ok(Some(Pinned::of(&info).unwrap_or(Pinned::NO_MAP)))
        };
        look().with_context(|| format!("the pinned map {}", path.display()))
    }

    /// The maps of a datapath that runs.
    pub fn open_maps(&self) -> Result<Maps> {
        ensure!(self.root.exists(), takeover::why_missing(&self.root));
        Maps::open(|name| self.open(name))
    }

    /// A pinned map.
    pub(super) fn open(&self, name: &str) -> Result<Map> {
        let path = self.map(name);
        let data = MapData::from_pin(&path)
            .with_context(|| format!("opening the pinned map {}", path.display()))?;
        Map::from_map_data(data).with_context(|| format!("map {name}"))
    }

    /// Pins a map of another directory here, too.
    pub(super) fn share(&self, other: &Self, name: &str) -> Result<()> {
        let path = self.map(name);
        let data = MapData::from_pin(other.map(name))
            .with_context(|| format!("opening the pinned map {}", other.map(name).display()))?;
        data.pin(&path)
            .with_context(|| format!("pinning {}", path.display()))
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

/// Removes whatever is at `path`, if anything is.
pub fn clear(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if file.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// An error where `path`, or what there is of the way to it, is not on a bpf filesystem.
pub fn on_bpffs(path: &Path) -> Result<()> {
    let there = path.ancestors().find(|path| path.exists());
    let there = there.with_context(|| format!("{} leads nowhere", path.display()))?;
    let kind = statfs(there)
        .with_context(|| format!("looking at {}", there.display()))?
        .filesystem_type();
    ensure!(
        kind == BPF_FS_MAGIC,
        "{} is not on a bpf filesystem: mount one (mount -t bpf bpf /sys/fs/bpf), or name a directory of one by --bpffs",
        path.display()
    );
    Ok(())
}

/// Which file is at a path: another one at the same path is another object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// `None` where nothing is.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(|file| Some(Self::from(&file))),
        }
    }

    pub fn of_open(file: &fs::File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(file: &fs::Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))
}

/// Where a map is pinned that is to replace another.
pub(super) fn new_pin(pins: &PinDir, name: &str) -> PathBuf {
    pins.map(&format!("{name}-new"))
}

/// Removes a pin, if it is there.
pub(super) fn forget(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("removing {}", pin.display())),
    }
}
