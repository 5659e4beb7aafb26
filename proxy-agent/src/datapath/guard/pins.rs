//! Handles of everything that is pinned, so that a pin that is removed costs nothing and can be made again.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};

use super::super::{
    pin::{FileId, clear},
    sys,
};

/// A pin, and a handle of what is pinned.
#[derive(Debug)]
pub struct Pin {
    object: OwnedFd,
    file: FileId,
}

impl Pin {
    /// Of what is pinned at `path`.
    pub fn of(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let object = sys::get(path)?;
            let file = FileId::of(path)?.ok_or(io::ErrorKind::NotFound)?;
            Ok(Self { object, file })
        };
        open().with_context(|| format!("opening {}", path.display()))
    }

    pub const fn object(&self) -> &OwnedFd {
        &self.object
    }

    pub fn is_at(&self, path: &Path) -> bool {
        matches!(FileId::of(path), Ok(Some(file)) if file == self.file)
    }

    /// Pins it again, in the place of whatever is there by now.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let restore = || -> io::Result<FileId> {
            clear(path)?;
            sys::pin(self.object.as_fd(), path)?;
            Ok(FileId::of(path)?.ok_or(io::ErrorKind::NotFound)?)
        };
        self.file = restore().with_context(|| format!("pinning {} again", path.display()))?;
        Ok(())
    }
}
