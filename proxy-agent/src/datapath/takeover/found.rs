//! The directories of pins under a bpffs directory: of which version, and what each is.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use proxy_common::abi;

use super::super::PinDir;

const PREFIX: &str = "portside-v";

/// What a directory is. In this order one is preferred to those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// `-new`: being made. No program uses what only it has.
    Staged,
    /// `-old-N`: replaced by maps of other sizes; programs may still use it.
    Retired(u32),
    /// Without a suffix.
    InForce,
}

/// One directory, as its name tells. The kernel allows no dots in it (`bpf_lookup`, kernel/bpf/inode.c).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Found {
    /// Version of its map ABI.
    pub version: u32,
    pub stage: Stage,
}

impl Found {
    /// The directory of this agent's version.
    pub const fn own(stage: Stage) -> Self {
        Self {
            version: abi::VERSION,
            stage,
        }
    }

    pub fn name(&self) -> String {
        let Self { version, stage } = self;
        match stage {
            Stage::Staged => format!("{PREFIX}{version}-new"),
            Stage::Retired(n) => format!("{PREFIX}{version}-old-{n}"),
            Stage::InForce => format!("{PREFIX}{version}"),
        }
    }

    /// `None` for a name that no agent gives.
    fn parse(name: &str) -> Option<Self> {
        let (version, suffix) = match name.strip_prefix(PREFIX)?.split_once('-') {
            None => (name.strip_prefix(PREFIX)?, None),
            Some((version, suffix)) => (version, Some(suffix)),
        };
        let stage = match suffix {
            None => Stage::InForce,
            Some("new") => Stage::Staged,
            Some(suffix) => Stage::Retired(suffix.strip_prefix("old-")?.parse().ok()?),
        };
        let version = version.parse().ok()?;
        Some(Self { version, stage })
    }

    pub fn pins(&self, bpffs: &Path) -> PinDir {
        PinDir::at(bpffs.join(self.name()))
    }
}

/// All that are there, in their order. None where `bpffs` is not there.
pub fn all(bpffs: &Path) -> Result<Vec<Found>> {
    let entries = match fs::read_dir(bpffs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let entries = entries.with_context(|| format!("reading {}", bpffs.display()))?;
    let mut all: Vec<_> = entries
        .iter()
        .filter_map(|entry| Found::parse(entry.file_name().to_str()?))
        .collect();
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_version_and_stage() {
        for (name, version, stage) in [
            ("portside-v2", 2, Stage::InForce),
            ("portside-v12-new", 12, Stage::Staged),
            ("portside-v3-old-0", 3, Stage::Retired(0)),
            ("portside-v3-old-11", 3, Stage::Retired(11)),
        ] {
            let found = Found { version, stage };
            assert_eq!(Found::parse(name), Some(found.clone()));
            assert_eq!(found.name(), name);
        }
        for name in [
            "portside-v",
            "portside-vx",
            "portside-v1-old",
            "portside-v1-old-x",
            "portside-v1-newer",
            "portside-v1-new-1",
            "cilium",
        ] {
            assert_eq!(Found::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_in_force_is_preferred_to_what_it_replaced_and_a_newer_version_to_an_older() {
        let mut names = [
            "portside-v2",
            "portside-v3-old-0",
            "portside-v2-old-10",
            "portside-v2-new",
            "portside-v2-old-9",
        ];
        names.sort_unstable_by_key(|name| Found::parse(name).unwrap());
        assert_eq!(
            names,
            [
                "portside-v2-new",
                "portside-v2-old-9",
                "portside-v2-old-10",
                "portside-v2",
                "portside-v3-old-0"
            ]
        );
    }
}
