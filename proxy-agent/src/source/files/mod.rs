//! A directory of manifests, as `kubectl` takes them, read again when it changes.
//!
//! ```text
//! directory -> watch (something changed, and is quiet again) -> tree (which files) -> directory (what is in them,
//! what differs from before) -> batch
//! ```
//!
//! The one rule: what cannot be read now stays as it was read last. That holds for a directory that is being replaced, a
//! file that is half written or does not answer, and an object that is not valid; each is logged once. SIGHUP has all of it
//! read and told anew.
//!
//! | file | subject |
//! |---|---|
//! | `tree` | which files count, and which directories tell of them |
//! | `watch` | waiting for a change, by inotify |
//! | `open` | the bytes of one file, without waiting for it for ever |
//! | `yaml` | the bytes of a YAML file into its documents |
//! | `manifest` | the documents of one file into objects and problems |
//! | `directory` | the objects of all files, and what differs from before |

mod directory;
mod manifest;
mod open;
#[cfg(test)]
mod tests;
mod tree;
mod watch;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
    time::sleep,
};

use self::{
    directory::{Directory, Reading},
    tree::Tree,
    watch::Watch,
};
use super::{Arrival, Batch, Heard, Source};
use crate::{
    model::{Event, Kind, ObjectName},
    notices::{Notice, Notices, Reason, Topic},
};

/// What is not read where the folder cannot be.
const MANIFESTS: &str = "manifests";

/// The source behind `--manifests DIR`.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    node_name: String,
    max_bytes: u64,
    notices: Notices,
    heard: Heard,
}

impl Files {
    /// Of the Nodes in `dir`, the one named `node_name` counts. Files of more than `max_bytes` are not read.
    pub fn new(dir: impl Into<PathBuf>, node_name: impl Into<String>, max_bytes: u64) -> Self {
        let dir = dir.into();
        Self {
            heard: Heard::of(format!("folder {}", dir.display())),
            dir,
            node_name: node_name.into(),
            max_bytes,
            notices: Notices::default(),
        }
    }

    /// When the folder was read.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// What is wrong with a Service is told there, too.
    pub fn telling(self, notices: Notices) -> Self {
        Self { notices, ..self }
    }
}

impl Source for Files {
    async fn run(self, arrivals: mpsc::Sender<Arrival>) -> anyhow::Result<()> {
        let Self {
            dir,
            node_name,
            max_bytes,
            notices,
            heard,
        } = self;
        let mut watch = Watch::new();
        let mut directory = Directory::new(node_name, max_bytes);
        let mut told = BTreeSet::new();
        let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;

        // A directory that is not there is a mistake at the start; later it is about to come back.
        let mut tree = Ok(watch
            .look(&dir)
            .with_context(|| format!("cannot read the manifests in {}", dir.display()))?);
        let mut at = Instant::now();
        let mut lost = false;
        let mut is_waiting = false;
        let mut end_of_list = vec![
            Event::Synced(Kind::Service),
            Event::Synced(Kind::EndpointSlice),
        ];
        loop {
            let mut batch = Batch::new();
            match tree {
                Ok(tree) => {
                    lost = false;
                    heard.now(None);
                    heard.is_over(MANIFESTS);
                    let reading;
                    (directory, reading) = read(directory, tree).await?;
                    log(&dir, &reading);
                    tell(&notices, &mut told, &reading.refused);
                    is_waiting = reading.is_waiting;
                    batch = reading.batch;
                }
                Err(error) if !lost => {
                    lost = true;
                    heard.trouble(MANIFESTS, format!("{error}"));
                    tracing::warn!(
                        "cannot read {}, what was read last stays in force: {error}",
                        dir.display()
                    );
                }
                Err(_) => {}
            }
            batch.append(&mut end_of_list);
            if !batch.is_empty() && arrivals.send(Arrival { at, batch }).await.is_err() {
                return Ok(());
            }
            tokio::select! {
                () = watch.changed() => {}
                () = sleep(watch::POLL), if is_waiting => {}
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: all of {} is read anew", dir.display());
                    directory.forget();
                }
                () = arrivals.closed() => return Ok(()),
            }
            at = Instant::now();
            tree = watch.look(&dir);
        }
    }
}

/// Reads on a thread that may block.
async fn read(mut directory: Directory, tree: Tree) -> anyhow::Result<(Directory, Reading)> {
    let done = spawn_blocking(move || {
        let reading = directory.read(&tree);
        (directory, reading)
    });
    Ok(done.await?)
}

/// Tells of the Services whose objects are wrong now, and takes back what was told of others.
fn tell(
    notices: &Notices,
    told: &mut BTreeSet<ObjectName>,
    refused: &BTreeMap<ObjectName, String>,
) {
    for gone in told.iter().filter(|name| !refused.contains_key(*name)) {
        notices.set(gone, Topic::Object, Vec::new());
    }
    for (name, problem) in refused {
        let notice = Notice::new(Reason::FieldRefused, problem);
        notices.set(name, Topic::Object, vec![notice]);
    }
    *told = refused.keys().cloned().collect();
}

fn log(dir: &Path, reading: &Reading) {
    for problem in &reading.new_problems {
        tracing::error!("{}/{problem}", dir.display());
    }
    for note in &reading.new_notes {
        tracing::warn!("{}/{note}", dir.display());
    }
    if !reading.batch.is_empty() {
        tracing::info!("{}: {} objects changed", dir.display(), reading.batch.len());
    }
}
