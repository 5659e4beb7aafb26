//! Waiting for a change, by inotify.
//!
//! [`Watch::look`] comes before the reading and [`Watch::changed`] after it, so that a change in between is not missed.
//! A change counts once the directories have been quiet for [`QUIET`], and while a manifest is being written, once
//! it is closed; but no longer than [`PATIENCE`] and [`PATIENCE_WITH_WRITERS`] after the first sign. Where inotify is
//! not to be had (its limits are per user), the directory is looked at every [`POLL`].

use std::{collections::HashSet, ffi::OsString, future, io, path::Path, time::Duration};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep, timeout_at},
};

use super::tree::{Tree, is_manifest};

const QUIET: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_millis(100);
const PATIENCE_WITH_WRITERS: Duration = Duration::from_secs(1);
pub const POLL: Duration = Duration::from_secs(2);

/// Large enough for many events with long names.
const BUFFER: usize = 16 * 1024;

pub struct Watch {
    inotify: Option<AsyncFd<Inotify>>,
    watched: HashSet<WatchDescriptor>,
    /// Is some directory not watched that should be?
    blind: bool,
    /// Manifests that were written to and not closed since.
    open: HashSet<(WatchDescriptor, OsString)>,
}

impl Watch {
    pub fn new() -> Self {
        Self {
            inotify: register()
                .inspect_err(|error| {
                    tracing::warn!("no inotify, looking every {POLL:?} instead: {error}");
                })
                .ok(),
            watched: HashSet::new(),
            blind: false,
            open: HashSet::new(),
        }
    }

    /// Walks `root`, and sees to it that every later change there is noticed.
    pub fn look(&mut self, root: &Path) -> io::Result<Tree> {
        loop {
            // A directory that is missing may come back where nothing is watched.
            let tree = Tree::walk(root).inspect_err(|_| self.blind = true)?;
            // What happened in a directory between the walk and its first watch was seen by neither.
            if !self.watch(&tree) {
                return Ok(tree);
            }
        }
    }

    /// Watches exactly the directories of `tree`. Were some of them not watched before?
    ///
    /// A path is added again each time, since another directory may have taken its place.
    fn watch(&mut self, tree: &Tree) -> bool {
        let Some(inotify) = &self.inotify else {
            self.blind = true;
            return false;
        };
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut watches = inotify.get_ref().watches();
        let mut wanted = HashSet::new();
        let was_blind = std::mem::take(&mut self.blind);
        for dir in &tree.dirs {
            match watches.add(dir, mask) {
                Ok(watch) => {
                    wanted.insert(watch);
                }
                // Gone since the walk: its parent tells of it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.blind = true;
                    if !was_blind {
                        tracing::warn!(
                            "cannot watch {}, looking every {POLL:?} instead: {error}",
                            dir.display()
                        );
                    }
                }
            }
        }
        for gone in self.watched.difference(&wanted) {
            // Fails where the kernel has removed it already, together with its directory.
            let _ = watches.remove(gone.clone());
        }
        let grown = !wanted.is_subset(&self.watched);
        self.watched = wanted;
        grown
    }

    /// Waits for a change, and until it is complete.
    pub async fn changed(&mut self) {
        if self.blind {
            tokio::select! {
                () = self.event() => {}
                () = sleep(POLL) => return,
            }
        } else {
            self.event().await;
        }
        let first = Instant::now();
        loop {
            let patience = match self.open.is_empty() {
                true => PATIENCE,
                false => PATIENCE_WITH_WRITERS,
            };
            let limit = first + patience;
            let wait = match self.open.is_empty() {
                true => limit.min(Instant::now() + QUIET),
                false => limit,
            };
            if Instant::now() >= limit || timeout_at(wait, self.event()).await.is_err() {
                self.open.clear();
                return;
            }
        }
    }

    /// Waits for events, and takes all that are there.
    async fn event(&mut self) {
        let Self { inotify, open, .. } = self;
        let Some(inotify) = inotify else {
            return future::pending().await;
        };
        let mut buffer = [0; BUFFER];
        loop {
            let Ok(mut guard) = inotify.readable_mut().await else {
                return future::pending().await;
            };
            let read = guard.try_io(|fd| fd.get_mut().read_events(&mut buffer));
            let Ok(Ok(events)) = read else {
                continue;
            };
            for event in events {
                let Some(name) = event.name.filter(|name| is_manifest(name)) else {
                    continue;
                };
                let file = (event.wd, name.to_owned());
                if event.mask.contains(EventMask::MODIFY) {
                    open.insert(file);
                } else if !event.mask.intersects(EventMask::CREATE | EventMask::ATTRIB) {
                    open.remove(&file);
                }
            }
            return;
        }
    }
}

fn register() -> io::Result<AsyncFd<Inotify>> {
    let inotify = Inotify::init()?;
    // SAFETY: `Inotify` keeps its descriptor open for as long as it lives, and never changes it.
    let registered = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
    Ok(registered?)
}
