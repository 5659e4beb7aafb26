//! One agent for each directory of pins.
//!
//! In: the bpffs directory. Out: a lock that ends with its process, however that ends. The one rule: who writes maps or moves links holds
//! it; who only looks does not.
//!
//! It is a flock(2) of the directory itself: that needs no file, which bpffs does not have, and it is the same for every container that
//! mounts the file system. While it is held, the file system is busy, and no umount(8) takes it away by mistake.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::libc::{major, minor};

use super::pin::{FileId, on_bpffs};

#[derive(Debug)]
pub struct Lock {
    bpffs: PathBuf,
    file: FileId,
    _held: File,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Attempt {
    Taken(Lock),
    /// By whom, as far as this process can see it.
    Held(Option<u32>),
}

/// Who has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    Nobody,
    Process(u32),
    /// A process that this one cannot see: it is of another PID namespace.
    Hidden,
}

impl Lock {
    /// Takes it, if nobody has it. Makes the directory where there is none.
    pub fn attempt(bpffs: &Path) -> Result<Attempt> {
        let open = || match File::open(bpffs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(bpffs)?;
                File::open(bpffs)
            }
            opened => opened,
        };
        let what = || format!("locking {}", bpffs.display());
        let directory = open().with_context(what)?;
        let file = FileId::of_open(&directory).with_context(what)?;
        match directory.try_lock() {
            Ok(()) => Ok(Attempt::Taken(Self {
                bpffs: bpffs.to_owned(),
                file,
                _held: directory,
            })),
            Err(TryLockError::WouldBlock) => Ok(Attempt::Held(holder(&directory))),
            Err(TryLockError::Error(error)) => Err(error).with_context(what),
        }
    }

    /// Who has it.
    pub fn holder(bpffs: &Path) -> Result<Holder> {
        let what = || format!("looking for the lock of {}", bpffs.display());
        let directory = match File::open(bpffs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            opened => opened.with_context(what)?,
        };
        match directory.try_lock_shared() {
            Ok(()) => Ok(Holder::Nobody),
            Err(TryLockError::WouldBlock) => {
                Ok(holder(&directory).map_or(Holder::Hidden, Holder::Process))
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(what),
        }
    }

    /// Takes it again where another bpffs is mounted at the directory by now. `false` where another agent has that one's.
    pub fn renew(&mut self) -> Result<bool> {
        if FileId::of(&self.bpffs)? == Some(self.file) || on_bpffs(&self.bpffs).is_err() {
            return Ok(true);
        }
        Ok(match Self::attempt(&self.bpffs)? {
            Attempt::Taken(lock) => {
                *self = lock;
                true
            }
            Attempt::Held(_) => false,
        })
    }
}

/// The process that holds the lock of `directory`; `None` for one of another PID namespace.
fn holder(directory: &File) -> Option<u32> {
    let file = directory.metadata().ok()?;
    let (device, inode) = (file.dev(), file.ino());
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, &file))
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:1c:5678 0 EOF`: the process, and device and inode (`lock_get_status`, fs/locks.c).
fn holder_in(line: &str, file: &str) -> Option<u32> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", process, found, ..] = fields[..] else {
        return None;
    };
    let process: u32 = process.parse().ok()?;
    (found == file && process != 0).then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_holds_it_and_gets_it_after_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let bpffs = dir.path().join("bpf");
        let Attempt::Taken(first) = Lock::attempt(&bpffs).unwrap() else {
            panic!("nobody has it");
        };
        let Attempt::Held(by) = Lock::attempt(&bpffs).unwrap() else {
            panic!("it is taken twice");
        };
        assert_eq!(by, Some(std::process::id()));
        assert_eq!(
            Lock::holder(&bpffs).unwrap(),
            Holder::Process(std::process::id())
        );
        drop(first);
        assert!(matches!(Lock::attempt(&bpffs).unwrap(), Attempt::Taken(_)));
    }

    #[test]
    fn locks_of_other_kinds_and_files_are_none() {
        for (line, found) in [
            ("1: FLOCK  ADVISORY  WRITE 1234 00:1c:7 0 EOF", Some(1234)),
            ("1: FLOCK  ADVISORY  WRITE 1234 00:1c:8 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE 1234 00:1d:7 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE 0 00:1c:7 0 EOF", None),
            ("2: POSIX  ADVISORY  WRITE 1234 00:1c:7 0 EOF", None),
            ("1: -> FLOCK  ADVISORY  WRITE 1234 00:1c:7 0 EOF", None),
            ("", None),
        ] {
            assert_eq!(holder_in(line, "00:1c:7"), found, "{line}");
        }
    }
}
